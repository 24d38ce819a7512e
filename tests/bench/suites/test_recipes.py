"""What a recipe's row says, without the minutes that a full step takes on a CPU."""

import json

import pytest

import unstill.bench.suites.recipes as bench
from unstill.bench.harness.step_process import variant_row
from unstill.pipeline.errors import InputError

ONE = dict.fromkeys(("p20", "p50", "p80"), 1.0)


@pytest.mark.slow
def test_each_recipe_is_measured_at_its_own_shape_and_method(tmp_path, monkeypatch):
    measured = []
    monkeypatch.setattr(
        bench, "measure", lambda variants, *_: measured.extend(variants) or [variant_row(variants[0], ONE, {})]
    )
    rows = json.loads(bench.run(bench.RecipeBench(out=tmp_path, planned=(), recipes=("choi_r3d18",))).read_text())[
        "rows"
    ]
    assert [(v.model, v.kind, v.batch) for v in measured] == [("r3d_18", "cross_entropy", 1)]
    assert rows[0]["method"] == "cross entropy"
    # 40.7 GMAC forward; forward and backward are 2.97 times that
    assert rows[0]["clip"] == "16x112x112" and rows[0]["tflop_per_clip"] == pytest.approx(0.242, rel=0.01)


@pytest.mark.slow
def test_what_can_be_counted_is_counted_of_any_recipe(tmp_path):
    config = bench.RecipeBench(out=tmp_path, planned=("own_small_albar",), measure=False)
    path = bench.run(config)
    step, fits = json.loads(path.read_text())["rows"]
    assert path.name == "recipes-plan.json"
    # three passes and the penalty's gradient of a gradient: three times cross entropy's 0.241
    assert step["value"] == pytest.approx(0.73, rel=0.02) and step["recipe_batch"] == 8
    per_card = [step[f"clips_on_{card}_gb"] for card in (8, 24, 80)]
    assert per_card == sorted(per_card) and per_card[0] >= 8
    assert step["h100_clips_per_s"] == pytest.approx(0.3 * 989 / step["value"])
    assert step["expected_clips_per_s"] == min(step["h100_clips_per_s"], step["decoder_clips_per_s"])
    assert fits["met"] and fits["value"] == pytest.approx(step["gib_of_a_step"]) and fits["card"] == "8 GB"


def test_recipes_of_other_shapes_are_refused(tmp_path):
    with pytest.raises(InputError, match="motion_cnn at 8x32 is not measured"):
        bench.run(bench.RecipeBench(out=tmp_path, planned=(), recipes=("demo_albar",)))
    with pytest.raises(InputError, match="choi_sdn_adversary: the step of sdn is not measured"):
        bench.run(bench.RecipeBench(out=tmp_path, planned=(), recipes=("choi_sdn_adversary",)))
    with pytest.raises(InputError, match=r"hmdb51_albar_stillmix: the step of albar \+ still mix is not measured"):
        bench.run(bench.RecipeBench(out=tmp_path, planned=(), recipes=("hmdb51_albar_stillmix",)))
    with pytest.raises(InputError, match="'nothing' is not known"):
        bench.run(bench.RecipeBench(out=tmp_path, planned=(), recipes=("nothing",)))
