"""HAT's ratios (Chung et al., "Enabling detailed action recognition evaluation", 2022): human against background.

    BOR    accuracy on background-only videos (the human painted out) / accuracy on the originals      lower is better
    HOR    accuracy on human-only videos (everything else the mean colour) / accuracy on the originals  higher
    SHAcc  accuracy on action swaps (human of one video, background of another) by the human's class    higher
    SBErr  share of action swaps that are given the background's class                                  lower

HOR is the least reliable of them: human-only pictures are far from what a network was trained on.
"""

from collections.abc import Mapping

import numpy as np

from ...pipeline.errors import InputError
from ..evaluation.predictions import Predictions
from ..evaluation.protocols import Share, correct, share


def hat_ratios(
    original: Predictions,
    background_only: Predictions | None = None,
    human_only: Predictions | None = None,
) -> dict[str, float]:
    """BOR and HOR by name, in percent of the accuracy on the originals; all sets hold the same keys.

    Raises:
        InputError: a key that one set lacks, or an original accuracy of 0.
    """
    ratios = {}
    for name, found in (("bor", background_only), ("hor", human_only)):
        if found is None:
            continue
        base = correct(original.aligned(found.keys, of=found.name)).mean()
        if base == 0:
            raise InputError(f"{original.name}: no video is right, so ratios to it have no meaning")
        ratios[name] = float(100 * correct(found).mean() / base)
    return ratios


def swap_scores(swap: Predictions, background_label: Mapping[str, int]) -> dict[str, Share]:
    """SHAcc and SBErr of action swaps.

    Args:
        swap: labels are the human's classes.
        background_label: the background's class of every key.

    Raises:
        InputError: a key without a background class, or one whose two classes are equal.
    """
    missing = next((key for key in swap.keys if key not in background_label), None)
    if missing is not None:
        raise InputError(f"background labels: key {missing!r} of {swap.name} is missing")
    behind = np.array([background_label[key] for key in swap.keys], np.int64)
    same = np.flatnonzero(behind == swap.labels)
    if len(same):
        raise InputError(f"key {swap.keys[same[0]]!r}: human and background have one class; they must differ")
    return {"shacc": share(correct(swap), swap.keys), "sberr": share(swap.predicted == behind, swap.keys)}
