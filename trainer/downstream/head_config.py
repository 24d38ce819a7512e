"""What the downstream commands have in common: options, and the rule for annotations that do not fit."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ...pipeline.errors import InputError
from ...pipeline.loading.device import Device
from ...pipeline.options import at_least, check_options

log = logging.getLogger(__name__)
BadAnnotations = Literal["refuse", "leave-out"]


@dataclass(frozen=True, kw_only=True)
class FeatureHeadConfig:
    """Options of a head that is trained on folders of features."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """The head is trained once for each, and measures are means over them."""
    window: int = 16
    """Frames that a row of features covers; of folders without features.json."""
    stride: int = 16
    """Frames from one row to the next; of folders without features.json."""
    bad_annotations: BadAnnotations = "refuse"
    """Videos without features, or whose annotation does not fit the video: stop and name them, or leave the videos out,
    count and name them."""
    timelines: int = 4
    """Pictures of test videos with what was found and what is there over time, evenly taken from the list."""
    device: Device = "auto"
    """Where the head trains. auto: cuda where there is one."""

    def __post_init__(self):
        if not self.seeds:
            raise InputError("seeds: expected at least one")
        check_options(self, window=at_least(1), stride=at_least(1), timelines=at_least(0))


def refuse_or_leave_out(bad: Sequence[str], among: str, path: Path, rule: BadAnnotations, hint: str = "") -> None:
    """Stop, or say what is left out.

    Args:
        bad: what cannot be used and why, a line each.
        among: what of, such as "290 test videos".
        path: of the annotations.
        rule: see ``FeatureHeadConfig``.
        hint: what else helps, such as "give --picture, ".

    Raises:
        InputError: there is something, and it is to be refused; names the first three and says how many.
    """
    if bad and rule == "refuse":
        raise InputError(
            f"{path}: {len(bad)} of {among} cannot be used: {'; '.join(bad[:3])}{' ...' if len(bad) > 3 else ''}; "
            f"correct them, {hint}or --bad-annotations leave-out"
        )
    for reason in bad:
        log.warning("left out: %s", reason)
