"""Options are refused with the field, the value and what was expected; what the annotation allows passes."""

import math
from dataclasses import dataclass
from typing import Literal

import pytest

from unstill.pipeline.errors import InputError
from unstill.pipeline.options import at_least, between, check_options, more_than


@dataclass(frozen=True)
class Options:
    kind: Literal["a", "b", "c"] = "a"
    sides: Literal[1, 3] | None = None
    formats: tuple[Literal["onnx", "torch"], ...] = ("onnx",)
    count: int = 1
    share: float | None = None
    decay: float = 0.0

    def __post_init__(self):
        ranges = {"share": between(0, 1, "a share", without_low=True), "decay": between(0, 1, without_high=True)}
        check_options(self, "some.", count=at_least(1), **ranges)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kind": "d"}, "some.kind is 'd'; expected one of a, b, c"),
        ({"sides": 2}, "some.sides is 2; expected one of 1, 3"),
        ({"formats": ("torch", "tensorrt")}, "some.formats is 'tensorrt'; expected one of onnx, torch"),
        ({"count": 0}, "some.count is 0; expected a whole number of at least 1"),
        ({"share": 0.0}, "some.share is 0.0; expected a share, above 0 to 1"),
        ({"decay": 1.0}, "some.decay is 1.0; expected 0 to below 1"),
        ({"decay": math.nan}, "some.decay is nan; expected 0 to below 1"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_expected(change, said):
    with pytest.raises(InputError) as error:
        Options(**change)
    assert str(error.value) == said


def test_what_is_allowed_passes():
    Options(kind="c", sides=3, formats=("torch", "onnx"), count=1, share=1.0, decay=0.999)
    Options(sides=None, formats=(), share=None)


def test_ends_and_nan():
    assert (
        0 in at_least(0) and 0 not in more_than(0) and 1 in between(0, 1) and 1 not in between(0, 1, without_high=True)
    )
    assert math.nan not in at_least(0) and math.nan not in more_than(0) and math.inf in at_least(0)
