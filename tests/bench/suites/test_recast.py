"""The benchmark of Recast: one small run through data, training and evaluation; worlds, forms and costs as named."""

import json

import pytest

from unstill.bench.suites import recast
from unstill.bench.suites.recast import (
    ABLATIONS,
    FORMS,
    TITLES,
    WORLDS,
    RecastBench,
    comparisons,
    cost_rows,
    recipe_for,
    run,
)
from unstill.pipeline.errors import InputError


def test_forms_and_worlds():
    assert set(TITLES) == set(FORMS) and set(ABLATIONS) <= set(FORMS)
    assert RecastBench(forms=("recast", "ablations", "recast")).names == ("recast", *ABLATIONS)
    with pytest.raises(InputError, match="worlds: 'mars' is not one of plain"):
        RecastBench(worlds=("mars",))
    # a camera's motion is taken out where a moving part is formed, and nowhere else
    assert recipe_for("recast", "handheld").model.view.steady == "similarity"
    assert recipe_for("recast", "plain").model.view.steady == "off" == recipe_for("albar", "shake").model.view.steady
    assert recipe_for("albar", "64px").clip.size == 64
    # each form differs from the others
    assert len({repr(replaced) for make in FORMS.values() for replaced in [make()]}) == len(FORMS)


def test_recast_is_held_to_albar():
    columns = dict.fromkeys(("iid", "scuba", "conflfg", "anti", "swap", "reversed_flip"), 80.0)
    albar = columns | {"scufo": 1.0, "scufo_probe": 62.5}
    forms = {"albar": albar, "recast": albar | {"anti": 90.0, "scufo_probe": 37.5}, "recast_moving": albar}
    plain = {row.title: (row.value, row.met) for row in comparisons(forms, "plain")}
    assert plain["Recast: SCUFO probe above chance, over ALBAR's, plain world"] == (0.5, True)
    assert plain["Recast, moving part: anti, plain world"] == (80.0, False)
    # the label upside down on still clips is no merit: 12.5 is not 11.5 points worse than 1
    forms["recast"] = albar | {"scufo": 12.5, "iid": 77.0}
    worst = [row for row in comparisons(forms, "shake") if "Recast: the column" in row.title]
    assert [row.value for row in worst] == [-3.0] and comparisons({"albar": albar}, "shake") == []


@pytest.mark.slow
def test_a_steps_cost_is_relative_to_albars():
    rows = cost_rows(8)
    assert rows[0].label == "ALBAR" and rows[0].value == 1
    assert [row.at_most for row in rows] == [None, 1.2, 0.85, None]
    assert all(0.05 < row.value < 5 and row.facts["milliseconds"] > 0 for row in rows)


@pytest.mark.slow
def test_one_run_and_a_repeat(tmp_path, monkeypatch):
    config = RecastBench(
        forms=("recast",),
        worlds=("shake",),
        seeds=(3,),
        runs=tmp_path / "runs",
        out=tmp_path / "results",
        train=32,
        test=8,
        epochs=1,
    )
    found = json.loads(run(config).read_text())
    assert [row["world"] for row in found["rows"]] == ["shake"] * 2
    assert found["rows"][0]["figure"] == "forms" and 0 <= found["rows"][0]["anti"] <= 100
    monkeypatch.setattr("unstill.bench.harness.procedural.runs.train", lambda _: pytest.fail("trained again"))
    assert json.loads(run(config).read_text())["rows"] == found["rows"]
    assert set(WORLDS) >= {"plain", "texture", "shake"} and recast.SECTIONS["recast"].charts["anti"].of == "forms"
