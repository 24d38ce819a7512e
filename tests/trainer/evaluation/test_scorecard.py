"""The scorecard: which set gives which measure, means over backgrounds, and what it refuses."""

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.evaluation import evaluate as evaluator
from unstill.trainer.evaluation.config import TestSets
from unstill.trainer.evaluation.files import latex
from unstill.trainer.evaluation.measures import CLIP_SETS, MEASURES, ClipSet, Measure
from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.protocols import share
from unstill.trainer.evaluation.scorecard import scorecard

CLASSES = ("left", "right", "wave")
KEYS = tuple(f"clip{i}" for i in range(6))
LABELS = np.array([0, 1, 2, 0, 1, 2])


def said(predicted, name="set", keys=KEYS, labels=LABELS):
    return Predictions(keys, labels, 5 * np.eye(3)[predicted], CLASSES, name)


def test_every_set_becomes_its_measures():
    sets = {
        "iid": said([0, 1, 2, 0, 1, 0]),
        "reversed": said([1, 1, 2, 1, 2, 2]),
        "shuffled": said([0, 0, 0, 0, 0, 0]),
        "static_iid": said([2, 2, 2, 2, 2, 2]),
        "scuba.a": said([0, 1, 2, 1, 1, 2]),
        "scufo.a": said([0, 0, 0, 0, 0, 2]),
        "scuba.b": said([1, 1, 2, 1, 1, 2]),
        "scufo.b": said([1, 0, 0, 0, 0, 0]),
        "shaken_scufo.a": said([0, 1, 2, 0, 1, 2]),
        "conflfg": said([0, 1, 2, 2, 2, 0]),
        "mine": said([0, 1, 1, 1, 1, 1]),
    }
    still = dict(zip(KEYS, [1, 0, 0, 2, 2, 1], strict=True))
    values = scorecard(sets, static_label=still, mirror={"left": "right", "right": "left"}).values()
    sixth = 100 / 6
    expected = {
        "iid": 5, "shuffled": 2, "static_iid": 2, "scuba.a": 5, "scuba.b": 4, "scuba": 4.5, "scufo.a": 3, "scufo.b": 1,
        "scufo": 2, "contrasted.a": 3, "contrasted.b": 4, "contrasted": 3.5, "shaken_scufo": 6,
        "conflfg": 3, "conflfg_static": 2, "conflfg_preference": 3, "mine": 3,
    }  # fmt: skip
    for name, sixths in expected.items():
        assert values[name] == pytest.approx(sixths * sixth), name
    assert values["reversed_keep"] == pytest.approx(25) and values["reversed_flip"] == pytest.approx(50)  # of four
    p = np.exp([5, 0, 0]) / np.exp([5, 0, 0]).sum()
    assert values["static_entropy"] == pytest.approx(-100 * (p * np.log(p)).sum() / np.log(3))
    mixed = Predictions(KEYS, sets["iid"].labels, sets["iid"].logits, sets["iid"].classes[::-1], "scuba.a")
    with pytest.raises(InputError, match=r"scuba\.a: its classes, or their order, are not those of iid"):
        scorecard({"iid": sets["iid"], "scuba.a": mixed})
    without = scorecard({"reversed": sets["reversed"], "conflfg": sets["conflfg"]}).values()
    assert list(without) == ["conflfg", "reversed"] and without["reversed"] == pytest.approx(3 * sixth)
    assert set(values) - {"mine"} - {n for n in values if "." in n} <= set(MEASURES)


def test_per_class_values_average_to_the_whole():
    card = scorecard({"iid": said([0, 1, 2, 0, 1, 0])})
    assert card.per_class["iid"] == {"left": 100, "right": 100, "wave": 50}


def test_backgrounds_of_unequal_size_count_alike_and_share_their_clusters():
    few = said([0, 1], keys=("clip0__1", "clip1__1"), labels=np.array([0, 1]))
    card = scorecard({"scuba.a": said([1, 0, 0, 1, 0, 0]), "scuba.b": few})
    assert card.shares["scuba"].value == pytest.approx(50)
    assert card.shares["scuba"].clusters == 6 and card.shares["scuba"].samples == 8
    assert share([1, 0], ["a", "b"], weights=[3, 1]).value == 75


def test_pairs_must_be_complete():
    with pytest.raises(InputError, match=r"scufo\.a: there is no scuba set"):
        scorecard({"scufo.a": said([0] * 6)})
    with pytest.raises(InputError, match="key 'clip5'"):
        scorecard({"scuba": said([0] * 6), "scufo": said([0] * 5, keys=KEYS[:5], labels=LABELS[:5])})


def test_a_measure_is_defined_in_one_place(monkeypatch, tmp_path):
    """Its entry, and that of its clips, are all that the evaluator, the scorecard and the tables need."""
    upside_down = Measure("Upside down", "lower", "Accuracy on videos that stand on their head.", one_sided=True)
    monkeypatch.setitem(MEASURES, "upside_down", upside_down)
    clips = ClipSet("upside_down", "iid", lambda frames, keys, seed: frames.flip(2))
    monkeypatch.setattr(evaluator, "CLIP_SETS", (*CLIP_SETS, clips))
    ((path, made),) = evaluator.clips_of(TestSets(iid=tmp_path), seed=0)
    rows = torch.arange(4).view(1, 1, 4, 1, 1)
    assert path == tmp_path and made["upside_down"](rows, ["k"]).flatten().tolist() == [3, 2, 1, 0]
    card = scorecard({"upside_down": said([0, 1, 2, 0, 0, 0])})
    assert card.values()["upside_down"] == pytest.approx(400 / 6)
    table = latex({"model": card}, {}, {})
    assert r"Upside down $\downarrow$$^\ast$" in table and "66.7" in table


def test_every_measure_is_taken_on_clips_that_exist():
    made = {clips.name for clips in CLIP_SETS} | {"anti", "swap", "unbiased"}  # the last three are given as --others
    assert {measure.clips or name for name, measure in MEASURES.items()} == made
