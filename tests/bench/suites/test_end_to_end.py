"""A recipe trained from shards to a checkpoint by the benchmark, at a clip shape that a test can wait for."""

import json
from dataclasses import replace

import pytest

import unstill.bench.suites.end_to_end as bench
from unstill.trainer.methods import Baseline


def test_the_recipe_is_kept_but_for_batch_and_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "_videomae_folder", lambda runs: runs / "sizes")
    monkeypatch.setattr(bench.DatasetInfo, "read", lambda path: bench.DatasetInfo(samples=4, classes=(), digest=""))
    for batch, repeats in ((1, 1), (2, 2)):
        config = bench.EndToEndBench(runs=tmp_path, batch_size=batch)
        found = bench.few_steps(config, "kinetics400_videomae_b_albar", tmp_path, "cpu")
        recipe = bench.RECIPES["kinetics400_videomae_b_albar"]()
        assert (found.clip, found.method, found.augmentation) == (recipe.clip, recipe.method, recipe.augmentation)
        assert (found.augment.repeats, found.total_steps(4)) == (repeats, 3) and found.model.weights == "none"


@pytest.mark.slow
def test_steps_are_counted_from_shards_to_the_checkpoint(tmp_path, monkeypatch):
    small = bench.RECIPES["demo_baseline"]()
    small = replace(small, method=Baseline(label_smoothing=0.1), inputs=replace(small.inputs, transform=None))
    monkeypatch.setitem(bench.RECIPES, "demo_baseline", lambda: small)
    config = bench.EndToEndBench(out=tmp_path, runs=tmp_path / "runs", recipes=("demo_baseline",), steps=2)
    (row,) = json.loads(bench.run(config).read_text())["rows"]
    assert row["value"] == 2 and row["met"] and row["clip"].startswith("8x32x32") and row["losses"].count(",") == 1
