"""`unstill bench` lists what is in suites/, offers the nearest name, and imports nothing heavy before it measures."""

import subprocess
import sys

import pytest

from unstill.bench import cli, suites
from unstill.pipeline.errors import InputError

CODE = """
import sys
from unstill.bench.cli import main
try:
    main({arguments!r})
except Exception as error:
    print(error)
print("torch" in sys.modules)
"""


@pytest.mark.parametrize("arguments", [[], ["kernel"]])
def test_the_list_and_a_typo_import_no_torch(arguments):
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(arguments=arguments)], capture_output=True, text=True, check=True
    )
    assert done.stdout.rstrip().endswith("False"), done.stdout
    for name in ["kernels"] if arguments else suites.names():
        assert name in done.stdout


def test_a_typo_names_the_nearest():
    with pytest.raises(InputError, match="'kernel'; did you mean kernels"):
        cli.main(["kernel"])


def test_every_suite_is_complete():
    for name in suites.names():
        assert suites.summary(name).endswith("."), name
        with pytest.raises(SystemExit) as ended:  # its options are found, and have help
            cli.main([name, "--help"])
        assert ended.value.code == 0
    sections = suites.sections()
    assert len({section.order for section in sections.values()}) == len(sections)
