"""The bias table: every method through data, training and evaluation, once; then nothing is done again."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from unstill.bench.harness.procedural import runs
from unstill.bench.harness.procedural.runs import ProceduralRuns
from unstill.bench.harness.result_files import read_results
from unstill.bench.suites import bias
from unstill.bench.suites.bias import BiasBench, markdown, run, summary
from unstill.pipeline.errors import InputError
from unstill.trainer.config import to_dict


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


def test_the_page_shows_the_committed_runs_and_what_was_published():
    """Its tables are those that the benchmark prints, of the runs in the file, rounded once."""
    root = Path(__file__).parents[3]
    page, results = (root / "docs" / "results.md").read_text(), root / "bench" / "results"
    rows = [row.facts for result in read_results(results) if result.file == "bias.json" for row in result.rows]
    measured, published = markdown(summary([row for row in rows if "seed" in row])).split("\n\n")
    assert measured.partition("\n")[2] in page  # without the heading, where the page also has the number of seeds
    assert published in page


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


def test_every_method_has_the_same_budget_and_its_recipe_is_one_of_its_settings():
    """Three settings each, cross entropy and ALBAR included, of which one has another learning rate."""
    recipes = BiasBench(tune=True).recipes()
    by_method = {name: [recipe for row, recipe in recipes if row["method"] == name] for name in bias.METHODS}
    assert {len(found) for found in by_method.values()} == {3}
    for name, found in by_method.items():
        assert len({recipe.optimiser.lr for recipe in found}) >= 2, name
        assert bias.METHODS[name]() in found, name
    assert len({bias.label(row) for row, _ in recipes}) == len(recipes)
    row, recipe = next(pair for pair in recipes if pair[0]["method"] == "mixup")
    assert row["setting"] == "prob 0.5, lr 0.004" and bias.label(row) == "mixup_prob_0.5_lr_0.004"
    assert (recipe.augmentation.prob, recipe.optimiser.lr) == (0.5, 0.004)


def test_a_label_turned_upside_down_wins_nothing():
    """The criterion is the mean of IID, SCUBA, Confl-FG and 100 less the probe; contrasted accuracy is not in it."""
    base = {column: 50.0 for column in bias.COLUMNS}
    found = [
        {"method": "a", "setting": setting, "seed": seed, **base, "scufo": scufo, "contrasted": 100 - scufo, "iid": iid}
        | {"scufo_probe": probe}
        for setting, scufo, probe, iids in (("hid", 0.0, 92.0, (60, 62)), ("open", 60.0, 80.0, (61, 59)))
        for seed, iid in zip((8, 9), iids, strict=True)
    ]
    rows = summary(found)
    assert [bias.criterion(row) for row in rows] == [pytest.approx((61 + 50 + 50 + 8) / 4), 45.0]
    assert bias.best_settings(rows) == {"a": "open"}
    rows[0]["scufo_probe"] = 60.0
    assert bias.best_settings(rows) == {"a": "hid"}


def test_a_new_option_at_its_default_trains_nothing_again(tmp_path, monkeypatch):
    own_runs = ProceduralRuns(folder=tmp_path)
    recipe = bias.METHODS["baseline"]()
    settings = to_dict(own_runs.settings("baseline", recipe, 3))
    plain = {k: v for k, v in settings.items() if k not in ("data", "out", "loader", "log", "checkpoint")}
    del plain["optimiser"]["dampening"]  # as an older version wrote it
    measures = dict.fromkeys((*bias.COLUMNS, "train_cpu_seconds"), 1.0)
    (tmp_path / "seed3" / "bias").mkdir(parents=True)
    done = tmp_path / "seed3" / "bias" / "baseline.json"
    done.write_text(json.dumps({"settings": plain, "measures": measures}))
    monkeypatch.setattr(runs, "train", lambda _: pytest.fail("trained again"))
    assert own_runs.measures("baseline", recipe, 3) == measures
    with pytest.raises(pytest.fail.Exception):  # another learning rate is another run
        own_runs.measures("baseline", bias.with_setting(recipe, {"optimiser.lr": 1e-3}), 3)
    del measures["scufo_probe"]  # measured before there was a probe
    done.write_text(json.dumps({"settings": plain, "measures": measures}))
    with pytest.raises(pytest.fail.Exception):
        own_runs.measures("baseline", recipe, 3)


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
    monkeypatch.setattr(runs, "train", lambda _: pytest.fail("trained again"))
    assert json.loads(run(config).read_text())["rows"] == found["rows"]
    with pytest.raises(InputError, match="seed3: holds 32 train videos, not 24"):
        run(replace(config, train=24))
