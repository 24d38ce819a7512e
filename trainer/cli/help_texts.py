"""Options from a command line, with help texts that flow: tyro breaks a line wherever the source has one.

tyro 1.0 takes the text below a field with the source's indentation, and keeps a line break before every line that does
not begin with a letter, so before each of them, and breaks neither usage nor description at the terminal's width. It
has no option for that, hence the replaced functions; another tyro that lacks them shows the texts as it sees fit.
"""

import contextlib
import functools
import re
import shutil
import sys
import textwrap
from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import tyro
import tyro._arguments
import tyro._strings


def parse(kind: Any, **options: Any) -> Any:
    """``tyro.cli``, with one paragraph for each text of ``--help``, and lines without ``{None}`` and empty defaults."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(patch.object(sys, "stdout", _Polished(sys.stdout)))
        if hasattr(tyro._strings, "remove_single_line_breaks"):
            stack.enter_context(patch.object(tyro._strings, "remove_single_line_breaks", paragraphs))
        if hasattr(tyro._arguments, "generate_argument_helptext"):
            with_default = tyro._arguments.generate_argument_helptext
            without = functools.partial(_without_empty_default, with_default)
            stack.enter_context(patch.object(tyro._arguments, "generate_argument_helptext", without))
        return tyro.cli(kind, **options)


def paragraphs(text: str) -> str:
    """Each paragraph as one line; empty lines stay."""
    blocks = text.replace("``", "`").strip().split("\n\n")
    return "\n\n".join(" ".join(block.split()) for block in blocks)


def _without_empty_default(generate: Callable, argument: Any, lowered: Any, **options: Any) -> Any:
    """tyro's text of an argument; that nothing is given by default is not said."""
    field = argument.field
    if lowered.instance_from_str is not None and lowered.action is None and field.argconf.help_behavior_hint is None:
        field = replace(field, argconf=replace(field.argconf, help_behavior_hint=_default))
        argument = replace(argument, field=field)
    return generate(argument, lowered, **options)


def _default(label: str) -> str:
    return "" if label in ("None", "''", "") else f"(default: {label})"


# a space between words, not one that may be missing: else the ways to divide a long word into words are tried in turn
_OPTIONAL = re.compile(r"\{None\}\|([^\s│]+(?: [^\s│]+)*)")
_REPEATED = re.compile(r"\[(\[)?((?:[^\s\[\]]+ )*[^\s\[\]]+) \[\2 \.\.\.\]\](?(1)\])")
_WORDS_FOLLOW = re.compile(r"  +[^ │]")
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def polish(line: str, width: int = 80) -> str:
    """A line of tyro's help without ``{None}|``, ``[PATH ...]`` for what may be repeated, and at most so many columns.

    Lines of an option are as wide as tyro makes them; the usage and the description above them are broken here.
    """
    if _COLOUR.sub("", line).startswith("usage:"):
        text = _REPEATED.sub(r"[\2 ...]", line.replace("{None}|", ""))
        return _folded(text, width)
    text = line
    for pattern, group, short in ((_OPTIONAL, 1, "{}"), (_REPEATED, 2, "[{} ...]")):
        text = pattern.sub(lambda found, group=group, short=short: _in_column(found, short.format(found[group])), text)
    body, border, end = text.rpartition("│")
    if not border:
        return text if len(_COLOUR.sub("", text.rstrip())) <= width else "\n".join(textwrap.wrap(text, width))
    return body + " " * (len(line) - len(text)) + border + end


def _in_column(found: re.Match[str], short: str) -> str:
    """Something shorter in the place of what was found; words to its right stay in their column."""
    return short.ljust(len(found[0])) if _WORDS_FOLLOW.match(found.string, found.end()) else short


def _folded(usage: str, width: int) -> str:
    """A usage line in lines, broken between its options."""
    parts, depth = [""], 0
    for piece in re.findall(r"\x1b\[[\d;]*m|.", usage):
        depth += (piece in "[{") - (piece in "]}")
        if piece == " " and depth == 0:
            parts.append("")
        else:
            parts[-1] += piece
    lines = [" ".join(parts[:3])]  # usage: unstill COMMAND
    for part in parts[3:]:
        if len(_COLOUR.sub("", f"{lines[-1]} {part}")) <= width:
            lines[-1] += f" {part}"
        else:
            lines.append(f"       {part}")
    return "\n".join(lines)


class _Polished:
    """A stream whose lines are polished, in all else the stream itself."""

    def __init__(self, stream: Any):
        self._stream = stream

    def write(self, text: str) -> int:
        width = shutil.get_terminal_size().columns
        self._stream.write("\n".join(polish(line, width) for line in text.split("\n")))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
