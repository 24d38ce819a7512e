"""Text that came from a file, made safe for where it is shown: a terminal, a CSV file, a LaTeX file."""

import re

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_LATEX = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
_LATEX |= {character: f"\\{character}" for character in "#$%&_{}"}


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8; bytes of a file name that are not count (``os.fsdecode``)."""
    try:
        text.encode(errors="surrogateescape")
    except UnicodeEncodeError:  # half of a surrogate pair, as JSON may hold it
        return False
    return True


def printable(text: str) -> str:
    """``text`` with everything that could break a line, a CSV or a terminal escaped; lossless for normal names."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)


def csv_cell(text: str) -> str:
    """``text`` as a cell of a table that people open in a spreadsheet: printable, and never a formula.

    What starts like a formula gets an apostrophe in front, by which spreadsheets know text. For cells of text only: a
    negative number would become text, too.
    """
    return "'" + printable(text) if text.startswith(_FORMULA) else printable(text)


def latex_text(text: str) -> str:
    """``text`` as LaTeX shows it letter by letter: no command, no comment, no line end."""
    return re.sub(r"[\\^~#$%&_{}]", lambda found: _LATEX[found[0]], printable(text))
