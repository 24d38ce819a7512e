"""``unstill hat``: HAT's ratios of trained models, on videos without people, without scenes, or with both swapped."""

import json

from ...pipeline.atomic_files import write_atomic
from ...pipeline.errors import InputError
from ..evaluation.derived_clips import as_filmed
from ..evaluation.evaluate import predict
from ..evaluation.subject import load_subject
from ..evaluation.truth import labels_from_csv
from .config import HatConfig
from .hat import hat_ratios, swap_scores


def measure_hat(config: HatConfig) -> dict[str, dict[str, float]]:
    """Model -> bor, hor, shacc, sberr in percent, as far as their videos are given; written to ``out``.

    Raises:
        InputError: a model or dataset cannot be used, or keys do not join.
    """
    subjects = [load_subject(run, trust_model_code=config.trust_model_code) for run in config.runs]
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
        if "swap" in sets_of and config.swap_backgrounds is not None:
            behind = labels_from_csv(config.swap_backgrounds, "background", subject.classes)
            values |= {name: share.value for name, share in swap_scores(sets_of["swap"], behind).items()}
        measures[subject.name] = values
    if config.out is not None:
        write_atomic(config.out, json.dumps(measures, indent=1).encode())
    return measures
