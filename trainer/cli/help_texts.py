"""Options from a command line, with help texts that flow: tyro breaks a line wherever the source has one.

tyro 1.0 takes the text below a field with the source's indentation, and keeps a line break before every line that does
not begin with a letter, so before each of them. It has no option for that, hence the replaced function; another tyro
that lacks it shows the texts as it sees fit.
"""

from typing import Any
from unittest.mock import patch

import tyro
import tyro._strings


def parse(kind: Any, **options: Any) -> Any:
    """``tyro.cli``, with one paragraph for each text of ``--help``."""
    if not hasattr(tyro._strings, "remove_single_line_breaks"):
        return tyro.cli(kind, **options)
    with patch.object(tyro._strings, "remove_single_line_breaks", paragraphs):
        return tyro.cli(kind, **options)


def paragraphs(text: str) -> str:
    """Each paragraph as one line; empty lines stay."""
    blocks = text.replace("``", "`").strip().split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)
