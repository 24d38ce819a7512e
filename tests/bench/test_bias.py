"""The bias table: every method through data, training and evaluation, once; then nothing is done again."""

import json
from dataclasses import replace

import pytest

from unstill.bench import bias
from unstill.bench.bias import BiasBench, markdown, run, summary
from unstill.pipeline.errors import InputError


def test_summary_and_markdown():
    base = {column: 50.0 for column in bias.COLUMNS}
    found = [
        {"method": "fame", "seed": 0, **base, "iid": 90.0, "scufo": 3.0},
        {"method": "be", "seed": 0, **base, "iid": 70.0, "scufo": 5.0},
        {"method": "fame", "seed": 1, **base, "iid": 94.0, "scufo": 3.0},
    ]
    rows = summary(found)
    assert [row["method"] for row in rows] == ["fame", "be"] and [row["n"] for row in rows] == [2, 1]
    assert rows[0]["iid"] == 92 and rows[0]["iid_sd"] == pytest.approx(8**0.5, abs=0.01) and "iid_sd" not in rows[1]
    first = markdown(rows).splitlines()[2]
    assert first.startswith("| FAME | 92.0 ± 2.8 |") and "| 3.0 ± 0.0 |" in first


def test_unknown_methods_are_refused():
    with pytest.raises(InputError, match="'none' is not one of baseline"):
        BiasBench(methods=("none",))


def test_each_value_of_each_rivals_constant():
    (alone, _), *recipes = BiasBench(tune=True).recipes()
    assert alone == {"method": "baseline"}
    assert [bias.label(row) for row, _ in recipes][:5] == [
        *(f"mixup_{p}" for p in (0.25, 0.5, 0.75, 1)),
        "videomix_0.25",
    ]
    assert {row["method"] for row, _ in recipes} == set(bias.METHODS) - {"baseline", "albar", "albar_stillmix"}
    for row, recipe in recipes:
        part, name = row["constant"].split(".")
        assert getattr(getattr(recipe, part), name) == row["value"]
    base = {column: 50.0 for column in bias.COLUMNS}
    found = [
        {"method": "a", "constant": "method.a", "value": value, "seed": seed, **base, "contrasted": contrasted}
        for value, seed, contrasted in ((0.25, 8, 10), (0.25, 9, 20), (1.0, 8, 29), (1.0, 9, 0))
    ]
    rows = summary(found)
    assert [(row["value"], row["n"], row["contrasted"]) for row in rows] == [(0.25, 2, 15), (1.0, 2, 14.5)]
    assert bias.best_values(rows) == {"a": 0.25}
    rows[0]["iid"] = rows[1]["iid"] - 3.1
    assert bias.best_values(rows) == {"a": 1.0}


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
    with pytest.raises(InputError, match="seed3: holds 32 train videos, not 24"):
        run(replace(config, train=24))
