"""HAT's ratios by hand."""

import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.diagnostics.hat import hat_ratios, swap_scores
from unstill.trainer.evaluation.predictions import Predictions


def said(answers, labels, name="set"):
    keys = tuple(f"v{n}" for n in range(len(labels)))
    return Predictions(keys, np.array(labels), np.eye(3)[answers], ("a", "b", "c"), name)


def test_ratios():
    labels = [0, 1, 2, 0]
    original, empty, alone = said([0, 1, 2, 1], labels), said([0, 2, 1, 1], labels), said([0, 1, 1, 1], labels)
    assert hat_ratios(original, empty, alone) == pytest.approx({"bor": 100 / 3, "hor": 200 / 3})
    assert set(hat_ratios(original, human_only=alone)) == {"hor"}
    with pytest.raises(InputError, match="ratios to it have no meaning"):
        hat_ratios(said([1, 0, 0, 1], labels), empty)
    with pytest.raises(InputError, match="'v3' of set is missing"):
        hat_ratios(said([0, 1, 2], [0, 1, 2]), empty)


def test_composites_join_their_originals_and_others_do_not_count():
    original = said([0, 1, 2, 1], [0, 1, 2, 0])
    found = Predictions(("v0__0", "v3__0"), np.array([0, 0]), np.eye(3)[[0, 2]], ("a", "b", "c"), "set")
    # of the two originals one is right, as is one of the composites; v1 and v2 have no composite
    assert hat_ratios(original, found) == {"bor": 100}


def test_swaps():
    swap = said([0, 1, 2, 2], [0, 1, 0, 1])
    scores = swap_scores(swap, {"v0": 1, "v1": 2, "v2": 2, "v3": 0})
    assert scores["shacc"].value == 50 and scores["sberr"].value == 25 and set(scores) == {"shacc", "sberr"}
    with pytest.raises(InputError, match="'v3' of set is missing"):
        swap_scores(swap, {"v0": 1, "v1": 2, "v2": 2})


def test_swaps_by_kind_with_the_control():
    """HAT's lists: backgrounds of close, far and random other classes, and of the same class, which is the control."""
    swap = said([0, 1, 2, 2, 0, 1], [0, 1, 0, 1, 0, 0])
    behind = dict(zip(swap.keys, [1, 2, 2, 0, 0, 0], strict=True))
    kinds = dict(zip(swap.keys, ["close", "close", "far", "far", "same", "same"], strict=True))
    scores = {name: share.value for name, share in swap_scores(swap, behind, kinds).items()}
    assert scores == {
        **{"shacc": 50, "sberr": 25},  # over the four whose background is of another class
        **{"shacc.close": 100, "sberr.close": 0, "shacc.far": 0, "sberr.far": 50, "shacc.same": 50},
    }
    # without kinds in words, the same class is told apart all the same
    assert set(swap_scores(swap, behind)) == {"shacc", "sberr", "shacc.other", "sberr.other", "shacc.same"}
    with pytest.raises(InputError, match="kind 'far'"):
        swap_scores(swap, behind | {"v2": 0}, kinds)
    only = said([0, 1], [0, 0])
    assert set(swap_scores(only, {"v0": 0, "v1": 0})) == {"shacc.same"}
