"""Checks of option dataclasses, for their ``__post_init__``: one line of a message, the same words everywhere.

    @dataclass(frozen=True, kw_only=True)
    class ClipConfig:
        frames: int = 32
        short_video: Literal["loop", "repeat_last"] = "loop"

        def __post_init__(self):
            check_options(self, "clip.", frames=at_least(1))

Values of a ``Literal`` are read from the annotations, so they are written once; ranges are named in the call. The
command line refuses most wrong values itself: these checks are for configurations made in Python or read from a file.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import InputError


@dataclass(frozen=True)
class Range:
    """The numbers that an option may be; see ``at_least``, ``more_than`` and ``between``.

    Attributes:
        low, high: the ends, None without one.
        without_low, without_high: that end does not belong to it.
        meaning: what the number is, for the message, such as "a share of the run".
    """

    low: float | None = None
    high: float | None = None
    without_low: bool = False
    without_high: bool = False
    meaning: str = ""

    def __contains__(self, value: float) -> bool:
        # written so that NaN is in no range
        above = self.low is None or (value > self.low if self.without_low else value >= self.low)
        below = self.high is None or (value < self.high if self.without_high else value <= self.high)
        return above and below

    def words(self, value: object) -> str:
        """What was expected instead of ``value``."""
        if self.high is None:
            number = f"more than {self.low:g}" if self.without_low else f"at least {self.low:g}"
            if isinstance(value, int) and not self.without_low:
                number = f"a whole number of {number}"
        else:
            number = f"{'above ' * self.without_low}{self.low:g} to {'below ' * self.without_high}{self.high:g}"
        return f"{self.meaning}, {number}" if self.meaning else number


def at_least(low: float, meaning: str = "") -> Range:
    """``low`` or more."""
    return Range(low, meaning=meaning)


def more_than(low: float, meaning: str = "") -> Range:
    """More than ``low``."""
    return Range(low, without_low=True, meaning=meaning)


def between(
    low: float, high: float, meaning: str = "", *, without_low: bool = False, without_high: bool = False
) -> Range:
    """``low`` to ``high``, with both ends unless said otherwise."""
    return Range(low, high, without_low, without_high, meaning)


def check_files(option: str, paths: Iterable[Path]) -> None:
    """Raises InputError: one of the paths of an option is no file."""
    for path in paths:
        if not path.is_file():
            raise InputError(f"{option}: no file at {path}")


def check_options(options: Any, prefix: str = "", **ranges: Range) -> None:
    """Check every field with a ``Literal`` in its annotation, and the fields that have a range; None is always fine.

    Args:
        options: an instance of a dataclass.
        prefix: what precedes a field's name on the command line, such as "clip.".
        **ranges: by field.

    Raises:
        InputError: names the field, its value and what was expected.
    """
    for name, allowed in _choices(type(options)).items():
        value = getattr(options, name)
        for each in value if isinstance(value, tuple) else (value,):
            if each is not None and each not in allowed:
                raise InputError(f"{prefix}{name} is {each!r}; expected one of {', '.join(map(str, allowed))}")
    for name, limits in ranges.items():
        value = getattr(options, name)
        if value is not None and value not in limits:
            raise InputError(f"{prefix}{name} is {value}; expected {limits.words(value)}")


@cache
def _choices(kind: type) -> dict[str, tuple]:
    """Field -> allowed values, for fields annotated with a Literal, ``Literal | None`` or a tuple of a Literal."""
    hints = get_type_hints(kind)
    found = {field.name: _literal(hints[field.name]) for field in fields(kind)}
    return {name: values for name, values in found.items() if values}


def _literal(hint: Any) -> tuple:
    if get_origin(hint) is Literal:
        return get_args(hint)
    parts = [part for part in get_args(hint) if part not in (type(None), Ellipsis)]
    is_tuple_or_union = get_origin(hint) in (tuple, Union) or type(hint).__name__ == "UnionType"
    return _literal(parts[0]) if is_tuple_or_union and len(parts) == 1 else ()
