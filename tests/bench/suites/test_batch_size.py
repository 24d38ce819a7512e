"""The batch size benchmark: its recipes differ in batch and optimiser alone, and its target is about the means."""

from dataclasses import replace

import pytest

from unstill.bench.suites import batch_size
from unstill.trainer.demo.recipes import demo_albar, demo_baseline


def test_recipes_differ_in_batch_rate_and_length_alone():
    found = batch_size.recipes(batch_size.BatchSizeBench(batches=(8, 32, 64, 256)))
    assert [about["batch"] for about, _ in found] == [8, 32, 64, 256] * 2
    for about, recipe in found:
        plain, batch = demo_albar() if about["method"] == "albar" else demo_baseline(), about["batch"]
        large = {64: 384, 256: 384} if about["method"] == "albar" else {64: 271, 256: 135}
        steps = ({8: 1536, 32: 384} | large)[batch]
        assert recipe.batch_size == batch and recipe.total_steps(1024) == steps
        assert recipe.optimiser.lr == pytest.approx(about["lr"], rel=2e-3)
        if about["method"] == "albar":
            assert about["lr"] == {8: 0.002, 32: 0.004, 64: 0.00566, 256: 0.008}[batch]
            warm = recipe.schedule.warmup * steps
            assert warm == pytest.approx({8: 76.8, 32: 19.2, 64: 50, 256: 50}[batch], abs=0.5)
            assert recipe.method.gp_every == {8: 4, 32: 4, 64: 3, 256: 2}[batch]
        else:
            assert about["lr"] == (0.004 if batch == 8 else 0.008) and recipe.schedule == plain.schedule
        kept = {"batch_size": 32, "epochs": 12} | {
            name: getattr(plain, name) for name in ("optimiser", "schedule", "method", "log")
        }
        assert replace(recipe, **kept) == plain and (batch != 32 or recipe == plain)
        assert recipe.log.every * batch == 16 * 32  # every record is a mean over as many clips


def test_batch_sizes_are_compared_seed_by_seed_and_the_largest_difference_has_the_target():
    measures = dict.fromkeys((*batch_size.COLUMNS, "train_cpu_seconds"), 10.0)
    values = {
        ("baseline", 8): (90.0, 94.0, 92.0),
        ("baseline", 64): (91.0, 92.0, 92.0),
        ("baseline", 256): (91.0, 95.1, 93.2),
        ("albar", 8): (80.0, 80.0, 80.0),
        ("albar", 64): (80.0, 81.0, 80.5),
    }
    runs = [
        {
            "method": method,
            "batch": batch,
            "epochs": 12.0,
            "lr": 4e-3,
            "seed": seed,
            **measures,
            batch_size.JUDGED_BY[method]: value,
        }
        for (method, batch), same in values.items()
        for seed, value in enumerate(same)
    ]
    rows = {row.title: row for row in batch_size.spread_rows(runs)}
    assert len(rows) == 3 + 1 + 2 * (1 + 1)
    pair = rows["cross entropy, 256 clips in a step against 8: iid"]
    # differences 1, 1.1 and 1.2: narrow, although the seeds themselves are 2 points apart; 4.30 x 0.1 / sqrt(3)
    assert pair.value == pytest.approx(1.1) and pair.met is None
    assert (pair.facts["low"], pair.facts["high"]) == pytest.approx((1.1 - 0.248, 1.1 + 0.248), abs=1e-3)
    largest = rows["cross entropy, 8 to 256 clips in a step: largest difference of iid"]
    assert largest.value == pytest.approx(1.4333, abs=1e-3) and largest.met is False
    assert largest.facts["between"] == "64 and 256"
    albar = rows["ALBAR, 8 to 64 clips in a step: largest difference of contrasted"]
    assert albar.value == pytest.approx(0.5) and albar.met
    assert rows["ALBAR, 8 to 64 clips in a step: largest difference of iid"].value == 0
    mean = batch_size.mean_row(batch_size.by_setting(runs)[0])
    assert (mean.value, mean.facts["n"], mean.facts["iid_sd"]) == (92.0, 3, pytest.approx(2.0, abs=1e-3))
    assert "low" not in batch_size.spread_rows([run for run in runs if run["seed"] == 0])[0].facts
