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
# a space between words, not one that may be missing: else the ways to divide a long word into words are tried in turn
_OPTIONAL = re.compile(r"\{None\}\|([^\s│]+(?: [^\s│]+)*)")
_REPEATED = re.compile(r"\[{1,2}((?:[^\s\[\]]+ )*[^\s\[\]]+) \[\1 \.\.\.\]\]{1,2}")
_WORDS_FOLLOW = re.compile(r"  +[^ │]")


def polish(line: str) -> str:
    """A line of tyro's help without ``{None}|`` and empty defaults; ``[PATH ...]`` is what may be repeated."""
    text = _NOTHING.sub("", line)
    for pattern, short in ((_OPTIONAL, "{}"), (_REPEATED, "[{} ...]")):
        text = pattern.sub(lambda found, short=short: _in_column(found, short.format(found[1])), text)
    if text == line:
        return line
    body, border, end = text.rpartition("│")
    if not border:
        return text
    if not re.sub(r"\x1b\[[\d;]*m", "", body).strip("│ "):
        return ""  # there was nothing else
    return body + " " * (len(line) - len(text)) + border + end


def _in_column(found: re.Match[str], short: str) -> str:
    """Something shorter in the place of what was found; words to its right stay in their column."""
    return short.ljust(len(found[0])) if _WORDS_FOLLOW.match(found.string, found.end()) else short


class _Polished:
    """A stream whose lines are polished, in all else the stream itself."""

    def __init__(self, stream: Any):
        self._stream, self._left_out = stream, False

    def write(self, text: str) -> int:
        if text == "\n" and self._left_out:  # tyro writes a line, and then its end
            self._left_out = False
            return 1
        lines = text.split("\n")
        pairs = [(polish(line), line) for line in lines]
        kept = [new for new, old in pairs if new or not old]
        self._left_out = not kept
        self._stream.write("\n".join(kept))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
