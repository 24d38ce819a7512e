"""HAT's ratios (Chung et al., "Enabling detailed action recognition evaluation", 2022): human against background.

    BOR    accuracy on background-only videos (the human painted out) / accuracy on the originals      lower is better
    HOR    accuracy on human-only videos (everything else the mean colour) / accuracy on the originals  higher
    SHAcc  accuracy on action swaps (human of one video, background of another) by the human's class    higher
    SBErr  share of action swaps that are given the background's class                                  lower

HOR is the least reliable of them: human-only pictures are far from what a network was trained on. Swaps come in kinds:
backgrounds of a close, a far or a random other class, and of the same class. The last kind is the control, for what
cutting and pasting costs by itself: its SHAcc is what the others are to be compared with, and it has no SBErr.
"""

from collections.abc import Mapping

import numpy as np

from ...pipeline.errors import InputError
from ..evaluation.predictions import Predictions
from ..evaluation.protocols import Share, correct, share, source_video


def hat_ratios(
    original: Predictions,
    background_only: Predictions | None = None,
    human_only: Predictions | None = None,
) -> dict[str, float]:
    """BOR and HOR by name, in percent of the accuracy on the originals of the same videos.

    Keys are those of the originals, or these with ``__0`` behind, as `unstill ood build` calls composites. Originals
    that have no such video, for want of masks, do not count.

    Raises:
        InputError: a key that the originals lack, or an original accuracy of 0.
    """
    row = {key: n for n, key in enumerate(original.keys)}
    ratios = {}
    for name, found in (("bor", background_only), ("hor", human_only)):
        if found is None:
            continue
        sources = [key if key in row else source_video(key) for key in found.keys]
        missing = next((key for key, source in zip(found.keys, sources, strict=True) if source not in row), None)
        if missing is not None:
            raise InputError(
                f"{original.name}: key {missing!r} of {found.name} is missing; every video needs its original"
            )
        base = correct(original)[[row[source] for source in sources]].mean()
        if base == 0:
            raise InputError(f"{original.name}: no video is right, so ratios to it have no meaning")
        ratios[name] = float(100 * correct(found).mean() / base)
    return ratios


def swap_scores(
    swap: Predictions, background_label: Mapping[str, int], kind: Mapping[str, str] | None = None
) -> dict[str, Share]:
    """SHAcc and SBErr of action swaps, over all whose background is of another class, and for each kind.

    Args:
        swap: labels are the human's classes.
        background_label: the background's class of every key.
        kind: of every key, in words; by default swaps are "other" or, with a background of the human's own class,
            "same".

    Returns:
        ``shacc`` and ``sberr``, where there are swaps with a background of another class, and ``shacc.KIND`` and
        ``sberr.KIND``; the latter is left out where no background is of another class.

    Raises:
        InputError: a key without a background class or kind, or a kind that mixes both.
    """
    for known, what in ((background_label, "background"), (kind, "kind")):
        missing = next((key for key in swap.keys if known is not None and key not in known), None)
        if missing is not None:
            raise InputError(f"{what} labels: key {missing!r} of {swap.name} is missing")
    behind = np.array([background_label[key] for key in swap.keys], np.int64)
    same = behind == swap.labels
    kinds = np.array([kind[key] for key in swap.keys]) if kind else np.where(same, "same", "other")
    found: dict[str, Share] = {}
    if not same.all():
        found |= _scores("", swap, behind, ~same)
    for name in dict.fromkeys(sorted(kinds.tolist())):
        rows = kinds == name
        if same[rows].any() and not same[rows].all():
            key = swap.keys[int(np.flatnonzero(rows & same)[0])]
            raise InputError(f"kind {name!r}: human and background of key {key!r} have one class, of others not")
        if kind or same.any():
            found |= _scores(f".{name}", swap, behind, rows)
    return found


def _scores(suffix: str, swap: Predictions, behind: np.ndarray, rows: np.ndarray) -> dict[str, Share]:
    keys = [key for key, row in zip(swap.keys, rows, strict=True) if row]
    found = {f"shacc{suffix}": share(correct(swap)[rows], keys)}
    if (behind != swap.labels)[rows].all():
        found[f"sberr{suffix}"] = share((swap.predicted == behind)[rows], keys)
    return found
