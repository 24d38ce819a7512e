"""The bias table: every method through data, training and evaluation, once; then nothing is done again."""

import json

import pytest

from unstill.bench import bias
from unstill.bench.bias import BiasBench, markdown, run, summary
from unstill.pipeline.errors import InputError


def test_summary_and_markdown():
    base = {column: 50.0 for column in bias.COLUMNS}
    found = [
        {"method": "a", "seed": 0, **base, "iid": 90.0, "scufo": 3.0},
        {"method": "b", "seed": 0, **base, "iid": 70.0, "scufo": 5.0},
        {"method": "a", "seed": 1, **base, "iid": 94.0, "scufo": 3.0},
    ]
    rows = summary(found)
    assert [row["method"] for row in rows] == ["a", "b"] and [row["n"] for row in rows] == [2, 1]
    assert rows[0]["iid"] == 92 and rows[0]["iid_sd"] == pytest.approx(8**0.5, abs=0.01) and "iid_sd" not in rows[1]
    first = markdown(rows).splitlines()[2]
    assert first.startswith("| a | **92.0 ± 2.8** |") and "**3.0 ± 0.0**" in first


def test_what_does_not_exist_is_refused():
    with pytest.raises(InputError, match="'none' is not one of baseline"):
        BiasBench(methods=("none",))
    with pytest.raises(InputError, match="expected shares above 0"):
        BiasBench(probs=(0.5, 1.5))


def test_each_share_of_augmented_samples_of_each_augmentation():
    recipes = BiasBench(probs=(0.25, 1.0)).recipes()
    assert [bias.label(row) for row, _ in recipes][:3] == ["mixup_0.25", "mixup_1", "videomix_0.25"]
    assert [recipe.augmentation.prob for _, recipe in recipes] == [0.25, 1.0] * 6  # not ALBAR, nor what has none
    base = {column: 50.0 for column in bias.COLUMNS}
    found = [
        {"method": "a", "prob": prob, "seed": seed, **base, "contrasted": contrasted}
        for prob, seed, contrasted in ((0.25, 8, 10), (0.25, 9, 20), (1.0, 8, 29), (1.0, 9, 0))
    ]
    rows = summary(found)
    assert [(row["prob"], row["n"], row["contrasted"]) for row in rows] == [(0.25, 2, 15), (1.0, 2, 14.5)]
    assert bias.best_probs(rows) == {"a": 0.25}


def test_three_methods_and_a_repeat(tmp_path, monkeypatch):
    config = BiasBench(
        methods=("sdn", "actor_cutmix", "albar_stillmix"),
        seeds=(3,),
        runs=tmp_path / "runs",
        out=tmp_path / "results",
        train=32,
        test=8,
        epochs=1,
    )
    found = json.loads(run(config).read_text())
    assert [row["method"] for row in found["rows"]] == list(config.methods) * 2
    assert all(0 <= row[column] <= 100 for row in found["rows"] for column in bias.COLUMNS)
    used = json.loads((tmp_path / "runs/seed3/bias/albar_stillmix.json").read_text())["settings"]
    assert used["augmentation"]["bank"].endswith("seed3/stills.safetensors")
    monkeypatch.setattr(bias, "train", lambda _: pytest.fail("trained again"))
    assert json.loads(run(config).read_text())["rows"] == found["rows"]
