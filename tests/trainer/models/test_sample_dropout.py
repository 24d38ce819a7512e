"""Random layers that draw by sample: the same for any part of a batch, and as random as those that they replace."""

import copy

import numpy as np
import pytest
import torch
from synthetic_run import CLASSES, clips_at, make_dataset, random_net, run_config

from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.build import build
from unstill.trainer.distributed import Ranks
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.models.sample_dropout import draw_bits, draw_per_sample
from unstill.trainer.passes import backward_in_passes, step_passes
from unstill.trainer.step_config import StepConfig

pytestmark = pytest.mark.usefixtures("one_thread")


def test_bits_are_uniform_and_differ_by_key_layer_and_place():
    keys = torch.from_numpy(np.random.default_rng(0).integers(0, 2**62, 64))
    bits = torch.stack([draw_bits(keys, layer, 4096) for layer in range(3)])
    uniform = bits.double() / 2**32
    assert bits.min() >= 0 and bits.max() < 2**32
    counts = torch.histc(uniform, 64, 0, 1)
    expected = uniform.numel() / 64
    assert ((counts - expected).square() / expected).sum() < 120  # chi-squared with 63 degrees of freedom: 1e-5
    rows = uniform.view(-1, 4096) - 0.5
    correlation = (rows @ rows.T) / (4096 / 12)
    assert correlation.fill_diagonal_(0).abs().max() < 6 / 4096**0.5  # any two rows, of 18,000 pairs
    assert (rows[:, 1:] * rows[:, :-1]).mean().abs() * 12 < 6 / rows.numel() ** 0.5  # neighbours
    assert torch.equal(draw_bits(keys[5:9], 2, 4096), bits[2, 5:9])


def test_without_keys_or_training_the_original_draws():
    torch.manual_seed(0)
    net, clips = random_net(CLASSES), torch.randn(4, 3, 4, 8, 8)
    same = copy.deepcopy(net)
    draws = draw_per_sample(same)
    assert same.state_dict().keys() == net.state_dict().keys()
    outputs = []
    for model in (net, same):
        torch.manual_seed(1)
        outputs.append((model.train()(clips), model.eval()(clips)))
    draws.keys = torch.arange(4)
    outputs.append((outputs[0][0], same.eval()(clips)))
    for found in outputs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found, outputs[0], strict=True))
    draws.keys = torch.arange(4).repeat(2)
    twice = same.train()(clips.repeat(2, 1, 1, 1, 1))
    torch.testing.assert_close(twice[:4], twice[4:])
    assert not torch.allclose(same(clips.repeat(2, 1, 1, 1, 1)), outputs[0][0].repeat(2, 1))


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_a_step_does_not_depend_on_the_number_of_parts(tmp_path, compiled):
    data = DatasetInfo.read(make_dataset(tmp_path / "data"))
    gradients = {}
    for parts in (2, 4):
        settings = StepConfig(precision="fp64", compile="off", static_parts=parts)
        config = run_config(tmp_path, step=settings, model=ModelConfig(name="synthetic_run:random_net"))
        state, step = build(config, data, Ranks(0, 1, torch.device("cpu")), steps=10)
        if compiled:
            torch._dynamo.reset()
            torch._dynamo.config.trace_autograd_ops = True
            step._loss_module.compile(fullgraph=True, dynamic=False, backend="aot_eager")
        batch = step._batch(clips_at(range(4)))
        torch.manual_seed(5)
        passes = step_passes(config.method, 4, True, static_parts=parts)
        backward_in_passes(step._loss_module, batch, passes, parameters=list(state.model.parameters()))
        gradients[parts] = [p.grad for p in state.model.parameters()]
    scale = max(float(g.abs().max()) for g in gradients[2])
    for a, b in zip(gradients[2], gradients[4], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12 * scale)
