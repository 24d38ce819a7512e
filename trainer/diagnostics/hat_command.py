"""``unstill hat``: HAT's ratios of trained models, on videos without people, without scenes, or with both swapped."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from ...pipeline.atomic_files import write_atomic
from ...pipeline.errors import InputError
from ..evaluation.derived_clips import as_filmed
from ..evaluation.evaluate import EvaluateOptions, labels_from_csv, load_subject, predict
from .hat import hat_ratios, swap_scores


@dataclass(frozen=True, kw_only=True)
class HatConfig:
    """Does a model read the human or the background? Datasets made by `unstill convert`, joined by key."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Run folders or checkpoints; each model is called as its folder is."""
    original: Path | None = None
    """The test videos as they are; needed for the ratios."""
    background_only: Path | None = None
    """The same videos with the human painted out: BOR."""
    human_only: Path | None = None
    """The same videos with everything but the human in the mean colour: HOR, the least reliable ratio."""
    swap: Path | None = None
    """Videos of one's human before another's background, in the human's class: SHAcc and SBErr."""
    swap_backgrounds: Path | None = None
    """CSV with the columns key and background, the class that each background comes from; needed for `swap`."""
    run: Annotated[EvaluateOptions, tyro.conf.arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    out: Path | None = None
    """A .json to write."""

    def __post_init__(self):
        if self.original is None and (self.background_only or self.human_only):
            raise InputError("BOR and HOR are ratios to the accuracy on the original videos; give --original")
        if (self.swap is None) != (self.swap_backgrounds is None):
            raise InputError("give --swap and --swap-backgrounds together")
        if not (self.background_only or self.human_only or self.swap):
            raise InputError("give at least one of --background-only, --human-only, --swap")


def measure_hat(config: HatConfig) -> dict[str, dict[str, float]]:
    """Model -> bor, hor, shacc, sberr in percent, as far as their videos are given; written to ``out``.

    Raises:
        InputError: a model or dataset cannot be used, or keys do not join.
    """
    subjects = [load_subject(run) for run in config.runs]
    found: dict[str, dict] = {subject.name: {} for subject in subjects}
    if len(found) < len(subjects):
        raise InputError(f"models {', '.join(s.name for s in subjects)}: two have one name; rename a folder")
    sets = ("original", "background_only", "human_only", "swap")
    for name in (name for name in sets if getattr(config, name) is not None):
        for (subject, _), predictions in predict(
            subjects, getattr(config, name), {name: as_filmed}, config.run
        ).items():
            found[subject][name] = predictions
    measures: dict[str, dict[str, float]] = {}
    for subject in subjects:
        sets_of = found[subject.name]
        values = {}
        if "original" in sets_of:
            values |= hat_ratios(sets_of["original"], sets_of.get("background_only"), sets_of.get("human_only"))
        if "swap" in sets_of:
            behind = labels_from_csv(config.swap_backgrounds, "background", subject.classes)
            values |= {name: share.value for name, share in swap_scores(sets_of["swap"], behind).items()}
        measures[subject.name] = values
    if config.out is not None:
        write_atomic(config.out, json.dumps(measures, indent=1).encode())
    return measures
