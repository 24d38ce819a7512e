"""The rule for other batch sizes: what it keeps, and that it leads back."""

import pytest

from unstill.trainer.optimisers.batch_rule import scaled_optimiser
from unstill.trainer.optimisers.config import OptimiserConfig


@pytest.mark.parametrize("factor", [0.25, 1, 2, 4])
def test_adamw_keeps_its_memory_in_clips_and_its_decay_over_the_run(factor):
    config = OptimiserConfig(name="adamw", lr=4e-3, weight_decay=0.01, betas=(0.95, 0.999), eps=1e-8)
    scaled = scaled_optimiser(config, factor)
    # steps of memory times clips in a step: the averages look back over as many clips
    for beta, before in zip(scaled.betas, config.betas, strict=True):
        assert factor / (1 - beta) == pytest.approx(1 / (1 - before))
    # a run has 1/factor as many steps, each of which takes away lr x decay
    assert scaled.lr * scaled.weight_decay / factor == pytest.approx(config.lr * config.weight_decay)
    assert scaled.lr == pytest.approx(config.lr * factor**0.5)
    assert scaled.eps * factor**0.5 == pytest.approx(config.eps)
    back = scaled_optimiser(scaled, 1 / factor)
    assert (back.lr, back.weight_decay) == pytest.approx((config.lr, config.weight_decay))
    assert scaled_optimiser(config, 1) == config


def test_the_first_moment_does_not_vanish_and_sgd_is_linear():
    adam = scaled_optimiser(OptimiserConfig(name="adamw", betas=(0.9, 0.999)), 64)
    assert adam.betas == (0.5, pytest.approx(0.936))
    low = scaled_optimiser(OptimiserConfig(name="adamw", betas=(0.0, 0.999)), 8)
    assert low.betas[0] == 0.0
    sgd = OptimiserConfig(name="sgd", lr=0.1, weight_decay=1e-4)
    scaled = scaled_optimiser(sgd, 8)
    assert scaled.lr == pytest.approx(0.8) and scaled.weight_decay == sgd.weight_decay
