"""A measured number, as a benchmark records it and the report draws it: with unit, direction, target and verdict."""

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal, TypeGuard

Role = Literal["ours", "peer", "limit"]
Better = Literal["higher", "lower", ""]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a result file.

    Attributes:
        title: what was measured; understood without its context.
        value: the number, a median where it was measured several times; None where it could not be measured.
        unit: of the value.
        better: which way is better. Follows from ``at_least`` or ``at_most`` where one is given.
        p20, p80: 20th and 80th percentile of repeated measurements.
        at_least, at_most: the project's target, one of them at most.
        target: name of the target; of the rows that share one the report lists the worst. By default the title.
        headline: what the number means, for the top of the report; empty for most.
        figure: which figure of the suite's section draws the row; empty for a row that is in the table alone.
        label: name of the bar in that figure; by default the title.
        group: heading that the bar shares with others.
        role: ours, a peer, or a limit that nothing can pass.
        detail: a few words below the bar.
        facts: everything else that is known, flat: shape, codec, other numbers of the same measurement.

    Raises:
        ValueError: two targets, a direction that contradicts the target, or a fact named like a field.
    """

    title: str
    value: float | None = None
    unit: str = ""
    better: Better = ""
    p20: float | None = None
    p80: float | None = None
    at_least: float | None = None
    at_most: float | None = None
    target: str = ""
    headline: str = ""
    figure: str = ""
    label: str = ""
    group: str = ""
    role: Role = "ours"
    detail: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        implied = {"higher": self.at_least is not None, "lower": self.at_most is not None}
        ways = [way for way, given in implied.items() if given]
        if len(ways) == 2 or (ways and self.better not in ("", ways[0])):
            raise ValueError(f"row {self.title!r}: at_least, at_most and better contradict each other")
        if ways:
            object.__setattr__(self, "better", ways[0])
        if clash := sorted(_RESERVED & self.facts.keys()):
            raise ValueError(f"row {self.title!r}: facts named like fields: {', '.join(clash)}")

    @property
    def met(self) -> bool | None:
        """Whether the target was met; None without one. A number that could not be measured meets none."""
        if self.at_least is None and self.at_most is None:
            return None
        if not finite(self.value):
            return False
        if self.at_least is not None and self.value < self.at_least:
            return False
        return self.at_most is None or self.value <= self.at_most

    def to_json(self) -> dict[str, object]:
        """Flat: the fields that say something, the verdict, then the facts."""
        said = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "facts"}
        said = {name: value for name, value in said.items() if value != _DEFAULTS[name]}
        return said | ({} if self.met is None else {"met": self.met}) | dict(self.facts)

    @classmethod
    def from_json(cls, content: Mapping[str, object]) -> "Row":
        """Read what ``to_json`` wrote.

        Raises:
            ValueError: no title, fields of the wrong type, or a verdict that its own number contradicts.
        """
        rest = dict(content)
        said: dict[str, Any] = {name: rest.pop(name) for name in _DEFAULTS if name in rest}
        met = rest.pop("met", None)
        for name, value in said.items():
            wanted = (int, float) if name in _NUMBERS else str
            if not isinstance(value, wanted) or isinstance(value, bool):
                raise ValueError(f"{name!r} is {value!r}")
        if not said.get("title"):
            raise ValueError("a row has no title")
        row = cls(**said, facts=rest)
        if row.met != met:
            raise ValueError(f"row {row.title!r} says met: {met}, its number says {row.met}")
        return row


_NUMBERS = ("value", "p20", "p80", "at_least", "at_most")
_DEFAULTS = {f.name: None if f.default is MISSING else f.default for f in fields(Row) if f.name != "facts"}
_RESERVED = {*_DEFAULTS, "met", "facts"}


def finite(value: object) -> TypeGuard[float]:
    """Whether it is a number that can be compared and drawn."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: float) -> str:
    """Three digits, thousands separated."""
    return f"{value:,.0f}" if abs(value) >= 999.5 else f"{value:.3g}"
