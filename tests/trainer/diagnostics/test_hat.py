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


def test_swaps():
    swap = said([0, 1, 2, 2], [0, 1, 0, 1])
    scores = swap_scores(swap, {"v0": 1, "v1": 2, "v2": 2, "v3": 0})
    assert scores["shacc"].value == 50 and scores["sberr"].value == 25
    with pytest.raises(InputError, match="'v3' of set is missing"):
        swap_scores(swap, {"v0": 1, "v1": 2, "v2": 2})
    with pytest.raises(InputError, match="'v0': human and background"):
        swap_scores(swap, {"v0": 0, "v1": 2, "v2": 2, "v3": 0})
