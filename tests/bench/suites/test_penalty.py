"""The penalty benchmark: its settings differ in the penalty alone, and its rows say what the runs say."""

from dataclasses import replace

import pytest

from unstill.bench.suites import penalty
from unstill.trainer.demo.recipes import demo_albar, demo_baseline


def test_settings_differ_in_how_often_the_penalty_is_taken_and_the_recipe_is_one_of_them():
    found = penalty.recipes(penalty.PenaltyBench())
    assert [about["gp_every"] for about, _ in found] == [1, 4, 16, 0]
    by_every = {about["gp_every"]: recipe for about, recipe in found}
    assert by_every[4] == demo_albar()
    assert not by_every[0].method.twice_differentiable
    for every in (1, 16):
        assert replace(by_every[every], method=demo_albar().method) == demo_albar()
        assert sum(by_every[every].method.penalises(step) for step in range(16)) == 16 / every
    assert len({penalty.label(about) for about, _ in found}) == 4
    searched = penalty.PenaltyBench(w_adv=(0.3, 1.0))
    assert searched.name == "penalty_search" and len(penalty.recipes(searched)) == 8
    assert penalty.PenaltyBench(epochs=(12, 24)).name == "penalty_longer"
    longer = penalty.recipes(penalty.PenaltyBench(epochs=(12, 24)))
    assert len({penalty.label(about) for about, _ in longer}) == 8 and {r.epochs for _, r in longer} == {12, 24}


def test_another_network_is_the_only_difference_and_must_learn_by_cross_entropy():
    deeper = penalty.PenaltyBench(model="motion_resnet", every=(4,))
    assert deeper.name == "penalty_deeper" and penalty.plain(penalty.PenaltyBench()) is None
    with_penalty, without = (recipe for _, recipe in penalty.recipes(deeper))
    assert with_penalty == penalty.with_model(demo_albar(), "motion_resnet") != demo_albar()
    assert replace(without, method=with_penalty.method) == with_penalty
    assert penalty.plain(deeper) == penalty.with_model(demo_baseline(), "motion_resnet")
    labels = {
        penalty.label(about) for config in (deeper, penalty.PenaltyBench()) for about, _ in penalty.recipes(config)
    }
    assert len(labels) == 2 + 4  # of another network too, so that none is taken for a run of the recipe's
    rows = [penalty.plain_row(deeper, 3, {"iid": iid}) for iid in (89.9, 90.1)]
    assert [row.met for row in rows] == [False, True]


def test_means_and_differences_are_those_of_the_runs():
    values = {1: (90.0, 94.0), 0: (95.0, 95.0)}
    measures = dict.fromkeys((*penalty.COLUMNS, "train_cpu_seconds"), 10.0)
    runs = [
        {
            "gp_every": every,
            "w_adv": 0.3,
            "epochs": 12,
            "model": "motion_cnn",
            "seed": seed,
            **measures,
            "contrasted": value,
        }
        for every, pair in values.items()
        for seed, value in enumerate(pair)
    ]
    with_penalty, without = map(penalty.mean_row, penalty.by_setting(runs))
    assert (with_penalty.value, with_penalty.facts["n"], with_penalty.facts["iid"]) == (92.0, 2, 10.0)
    assert with_penalty.facts["contrasted_sd"] == pytest.approx(8**0.5, abs=1e-3) and without.value == 95.0
    # of runs that differ in nothing but the penalty
    (difference,) = penalty.spread_rows([*runs, *({**run, "epochs": 24} for run in runs if run["gp_every"])])
    assert difference.value == -3.0 and difference.facts["pooled_sd"] == pytest.approx(2.0)
