"""``unstill`` as a script, for torchrun: its console script is found only where the environment is activated.

The word ``then`` stands between commands that the same processes run one after another.
"""

import itertools
import sys

from unstill.trainer.cli.main import run

if __name__ == "__main__":
    for then, words in itertools.groupby(sys.argv[1:], "then".__eq__):
        if not then and (code := run(list(words))):
            sys.exit(code)
