"""The rule for other batch sizes: what it keeps."""

import pytest

from unstill.trainer.optimisers.batch_rule import longer_run, scaled_optimiser
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.optimisers.schedule import ScheduleConfig, multiplier


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("factor", [0.25, 1, 4, 16])
def test_the_sum_of_the_learning_rates_stays(name, factor):
    config, schedule = OptimiserConfig(name=name, lr=4e-3), ScheduleConfig()
    scaled = scaled_optimiser(config, factor)
    steps = 19200
    other = round(steps * longer_run(config, factor) / factor)
    sums = [
        lr * sum(multiplier(schedule, step, count) for step in range(count))
        for lr, count in ((config.lr, steps), (scaled.lr, other))
    ]
    assert sums[1] == pytest.approx(sums[0], rel=5e-3)


def test_the_rate_grows_with_the_root_of_the_batch_and_for_sgd_with_the_batch():
    assert scaled_optimiser(OptimiserConfig(name="adamw", lr=1e-3), 16).lr == pytest.approx(4e-3)
    assert scaled_optimiser(OptimiserConfig(name="sgd", lr=0.1), 8).lr == pytest.approx(0.8)
    config = OptimiserConfig(name="adam")
    assert scaled_optimiser(config, 1) == config
