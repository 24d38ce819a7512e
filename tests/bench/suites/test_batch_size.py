"""The batch size benchmark: its recipes differ in batch and optimiser alone, and its target is about the means."""

from dataclasses import replace

import pytest

from unstill.bench.suites import batch_size
from unstill.trainer.demo.recipes import demo_albar, demo_baseline


def test_recipes_differ_in_batch_rate_and_length_alone():
    found = batch_size.recipes(batch_size.BatchSizeBench())
    assert [about["batch"] for about, _ in found] == [8, 32, 64, 256] * 2
    for about, recipe in found:
        plain, batch = demo_albar() if about["method"] == "albar" else demo_baseline(), about["batch"]
        assert recipe.batch_size == batch and recipe.total_steps(1024) == {8: 1536, 32: 384, 64: 271, 256: 135}[batch]
        assert recipe.optimiser.lr == plain.optimiser.lr * (0.5 if batch == 8 else 1)
        if about["method"] == "albar":
            assert recipe.method.gp_every == {8: 4, 32: 4, 64: 3, 256: 2}[batch]
        kept = {"batch_size": 32, "epochs": 12, "optimiser": plain.optimiser, "method": plain.method, "log": plain.log}
        assert replace(recipe, **kept) == plain and (batch != 32 or recipe == plain)
        assert recipe.log.every * batch == 16 * 32  # every record is a mean over as many clips


def test_the_target_is_between_the_means_of_the_batch_sizes():
    measures = dict.fromkeys((*batch_size.COLUMNS, "train_cpu_seconds"), 10.0)
    values = {("baseline", 8): (90.0, 94.0), ("baseline", 64): (91.0, 92.0), ("albar", 8): (80.0, 80.0)}
    runs = [
        {"method": method, "batch": batch, "seed": seed, **measures, batch_size.JUDGED_BY[method]: value}
        for (method, batch), pair in values.items()
        for seed, value in enumerate(pair)
    ]
    rows = {row.facts["method"]: row for row in batch_size.spread_rows(runs)}
    assert rows["baseline"].value == pytest.approx(0.5) and rows["baseline"].met
    assert rows["albar"].value == 0 and len(rows) == 2
    (worst,) = batch_size.spread_rows(
        [run for run in runs if run["method"] == "baseline" and run["seed"] == 0] + [runs[0]]
    )
    assert worst.value == pytest.approx(1.0)
    mean = batch_size.mean_row(batch_size.by_setting(runs)[0])
    assert (mean.value, mean.facts["n"], mean.facts["iid_sd"]) == (92.0, 2, pytest.approx(8**0.5, abs=1e-3))
