"""Options from a command line, with help texts that flow: tyro breaks a line wherever the source has one.

tyro 1.0 takes the text below a field with the source's indentation, and keeps a line break before every line that does
not begin with a letter, so before each of them. It has no option for that, hence the replaced function; another tyro
that lacks it shows the texts as it sees fit.
"""

import re
import sys
from typing import Any
from unittest.mock import patch

import tyro
import tyro._strings


def parse(kind: Any, **options: Any) -> Any:
    """``tyro.cli``, with one paragraph for each text of ``--help``, and lines without ``{None}`` and empty defaults."""
    with patch.object(sys, "stdout", _Polished(sys.stdout)):
        if not hasattr(tyro._strings, "remove_single_line_breaks"):
            return tyro.cli(kind, **options)
        with patch.object(tyro._strings, "remove_single_line_breaks", paragraphs):
            return tyro.cli(kind, **options)


def paragraphs(text: str) -> str:
    """Each paragraph as one line; empty lines stay."""
    blocks = text.replace("``", "`").strip().split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)


_NOTHING = re.compile(r" ?\(default: (None|''|)\)")
_OPTIONAL = re.compile(r"\{None\}\|")
_REPEATED = re.compile(r"\[{1,2}((?:[^\s\[\]]+ ?)+?) \[\1 \.\.\.\]\]{1,2}")


def polish(line: str) -> str:
    """A line of tyro's help without ``{None}|`` and empty defaults; ``[PATH ...]`` is what may be repeated."""
    text = _REPEATED.sub(r"[\1 ...]", _OPTIONAL.sub("", _NOTHING.sub("", line)))
    if text == line:
        return line
    body, border, end = text.rpartition("│")
    if not border:
        return text
    if not re.sub(r"\x1b\[[\d;]*m", "", body).strip("│ "):
        return ""  # there was nothing else
    return body + " " * (len(line) - len(text)) + border + end


class _Polished:
    """A stream whose lines are polished, in all else the stream itself."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        lines = text.split("\n")
        kept = [polish(line) for line in lines]
        self._stream.write("\n".join(new for new, old in zip(kept, lines, strict=True) if new or not old))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
