"""The learning rate as a function of the step."""

import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.optimisers.schedule import ScheduleConfig, multiplier


def test_warm_up_then_cosine_to_the_end():
    config = ScheduleConfig(warmup=0.1, start=0.01, final=0.0)
    rates = [multiplier(config, step, 100) for step in range(100)]
    assert rates[0] == pytest.approx(0.01 + 0.99 / 10) and rates[9] == 1.0
    assert rates[:10] == sorted(rates[:10]) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5) and rates[99] < 1e-3


def test_steps_and_constant():
    config = ScheduleConfig(kind="step", warmup=0.0, milestones=(0.5, 0.75), gamma=0.1)
    assert [multiplier(config, step, 100) for step in (0, 49, 50, 74, 75, 99)] == pytest.approx(
        [1, 1, 0.1, 0.1, 0.01, 0.01]
    )
    assert multiplier(ScheduleConfig(kind="constant", warmup=0.0), 7, 10) == 1.0
    assert multiplier(ScheduleConfig(warmup=0.05), 0, 1) == 1.0  # a run of one step


def test_a_warm_up_in_epochs_is_as_long_in_a_longer_run():
    config = ScheduleConfig(warmup_epochs=2.5, kind="constant")
    for epochs in (5, 30):
        rates = [multiplier(config.over(epochs), step, 10 * epochs) for step in range(10 * epochs)]
        assert rates[:26] == pytest.approx([*((step + 1) / 25 for step in range(25)), 1])
    assert ScheduleConfig(warmup=0.2).over(7) == ScheduleConfig(warmup=0.2)
    with pytest.raises(InputError, match=r"warmup_epochs is 2.5; .* run's 2 epochs"):
        config.over(2)


def test_wrong_values_are_refused():
    with pytest.raises(InputError, match=r"schedule\.kind is 'linear'"):
        ScheduleConfig(kind="linear")
    with pytest.raises(InputError, match=r"schedule\.warmup is 1"):
        ScheduleConfig(warmup=1.0)
