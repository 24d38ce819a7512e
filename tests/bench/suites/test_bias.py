"""The bias table: every method through data, training and evaluation, once; then nothing is done again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unstill.bench.harness.result_files import read_results
from unstill.bench.suites import bias
from unstill.bench.suites.bias import BiasBench, markdown, run, summary
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


def test_the_readme_shows_the_committed_runs():
    """Its tables are those of the runs in the files, rounded once."""
    root = Path(__file__).parents[3]
    readme, results = (root / "README.md").read_text(), root / "bench" / "results"
    files = {result.file: [row.facts for row in result.rows] for result in read_results(results)}
    for table in markdown(summary([row for row in files["bias.json"] if "seed" in row])).split("\n\n"):
        assert table in readme
    shown = {row["model"]: row for row in files["demo.json"] if row.get("seed") == 0 and "iid" in row}
    for column in ("iid", "scuba", "scufo", "conflfg", "contrasted", "anti", "swap", "shaken_scufo", "reversed_keep"):
        assert f"| {shown['baseline'][column]:.1f} | {shown['albar'][column]:.1f} |" in readme, column


def test_agreement_is_of_ranks():
    rows = [
        {
            "method": name,
            **dict(zip(bias.COLUMNS, (1.0, -values[1], values[2] ** 3, values[3], values[4]), strict=False)),
        }
        for name, values in bias.PUBLISHED_HMDB51.items()
    ]
    for row, iid in zip(rows, (1, 2, 3, 4, 5, 6, 7, 8, 9), strict=True):
        row["iid"] = iid
    found = bias.agreement([*rows, {"method": "two_streams"}])
    assert [found[c] for c in ("scuba", "scufo", "conflfg", "contrasted")] == pytest.approx([-1, 1, 1, 1])
    theirs = [bias.PUBLISHED_HMDB51[row["method"]][0] for row in rows]
    distance = sum((sorted(theirs).index(v) - n) ** 2 for n, v in enumerate(theirs))
    assert found["iid"] == pytest.approx(1 - 6 * distance / (9 * 80))  # the textbook's formula, without ties


def test_unknown_methods_are_refused():
    with pytest.raises(InputError, match="'none' is not one of baseline"):
        BiasBench(methods=("none",))


def test_each_value_of_each_methods_constant():
    (alone, _), *recipes = BiasBench(tune=True).recipes()
    assert alone == {"method": "baseline"}
    assert [bias.label(row) for row, _ in recipes][:5] == [
        *(f"mixup_{p}" for p in (0.25, 0.5, 0.75, 1)),
        "videomix_0.25",
    ]
    assert {row["method"] for row, _ in recipes} == set(bias.METHODS) - {"baseline", "albar", "albar_stillmix"}
    for row, recipe in recipes:
        part, name = row["constant"].split(".")
        assert getattr(getattr(recipe, part), name) == row["setting"]
    base = {column: 50.0 for column in bias.COLUMNS}
    found = [
        {"method": "a", "constant": "method.a", "setting": value, "seed": seed, **base, "contrasted": contrasted}
        for value, seed, contrasted in ((0.25, 8, 10), (0.25, 9, 20), (1.0, 8, 29), (1.0, 9, 0))
    ]
    rows = summary(found)
    assert [(row["setting"], row["n"], row["contrasted"]) for row in rows] == [(0.25, 2, 15), (1.0, 2, 14.5)]
    assert bias.best_values(rows) == {"a": 0.25}
    rows[0]["iid"] = rows[1]["iid"] - 3.1
    assert bias.best_values(rows) == {"a": 1.0}


@pytest.mark.slow
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
