"""What to say about a name that is not known: the one that was probably meant, and where all of them are listed."""

import difflib
from collections.abc import Iterable


def unknown(kind: str, name: str, known: Iterable[str], listed_by: str) -> str:
    """One line about a mistyped name.

    Args:
        kind: what the name is of: "recipe", "command", ...
        name: what was given.
        known: every name that there is.
        listed_by: the command that lists them.
    """
    known = list(known)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"no {kind} named {name!r}; did you mean {' or '.join(close)}? `{listed_by}` lists them all"
    if len(known) <= 4:
        return f"no {kind} named {name!r}; expected {' or '.join(known)}"
    return f"no {kind} named {name!r}; `{listed_by}` lists them all"
