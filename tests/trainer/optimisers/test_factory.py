"""Optimisers: skipping on the device, parameter groups, and the two kinds of `apex`."""

import sys
import types
from typing import Any

import pytest
import torch
from torch import nn

from unstill.pipeline.errors import InputError
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.optimisers.factory import make_optimiser, parameter_groups, set_learning_rate


def parameters(dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    shapes = ((3, 4), (5,), (2, 3, 2))
    params = [nn.Parameter(torch.randn(shape, generator=g, dtype=dtype)) for shape in shapes]
    return params, g


def give_gradients(params, g, value=None):
    for p in params:
        p.grad = torch.randn(p.shape, generator=g, dtype=p.dtype) if value is None else torch.full_like(p, value)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("bad_step", [0, 1])
def test_a_skipped_step_leaves_no_trace(name, bad_step):
    histories = []
    for skip in (False, True):
        params, g = parameters()
        config = OptimiserConfig(name=name, lr=0.1)
        optimiser = make_optimiser(config, [{"params": params, "lr": 0.1, "lr_scale": 1.0, "weight_decay": 0.01}])
        for step in range(3):
            if skip and step == bad_step:
                give_gradients(params, g, float("nan"))
                optimiser.grad_scale, optimiser.found_inf = None, torch.ones(())
                optimiser.step()
            give_gradients(params, g)
            optimiser.grad_scale, optimiser.found_inf = None, torch.zeros(())
            optimiser.step()
        histories.append(params)
    for p, q in zip(*histories, strict=True):
        assert torch.equal(p, q)


def test_groups_split_by_learning_rate_and_decay():
    net = nn.Sequential()
    net.body, net.head = nn.Conv3d(3, 4, 1), nn.Linear(4, 2)
    config = OptimiserConfig(lr=0.01, weight_decay=0.1, decay_norms=False, head_lr=10.0)
    groups = parameter_groups(net, "head", config)
    found = {(g["lr"], g["weight_decay"]): [tuple(p.shape) for p in g["params"]] for g in groups}
    assert found == {
        (0.01, 0.1): [(4, 3, 1, 1, 1)],
        (0.01, 0.0): [(4,)],
        (0.1, 0.1): [(2, 4)],
        (0.1, 0.0): [(2,)],
    }
    optimiser = make_optimiser(config, groups)
    set_learning_rate(optimiser, 0.005)
    assert [g["lr"] for g in optimiser.param_groups] == pytest.approx([0.005, 0.005, 0.05, 0.05])
    assert len(parameter_groups(net, "head", OptimiserConfig())) == 1


def test_apex_is_nvidias_only_with_its_cuda_extension(monkeypatch):
    params, _ = parameters()
    config = OptimiserConfig(name="adam", backend="apex", lr=0.1)
    groups = [{"params": params, "lr": 0.1, "lr_scale": 1.0, "weight_decay": 0.0}]
    impostor = types.ModuleType("apex")  # what the package index calls apex
    monkeypatch.setitem(sys.modules, "apex", impostor)
    monkeypatch.setitem(sys.modules, "amp_C", None)
    with pytest.raises(InputError, match="amp_C"):
        make_optimiser(config, groups)
    with pytest.raises(InputError, match="lamb: torch has none"):
        OptimiserConfig(name="lamb")

    calls = []
    impostor.optimizers = types.ModuleType("apex.optimizers")
    for name in ("FusedSGD", "FusedAdam", "FusedLAMB"):
        setattr(impostor.optimizers, name, lambda groups, name=name, **options: calls.append((name, options)))
    monkeypatch.setitem(sys.modules, "apex.optimizers", impostor.optimizers)
    monkeypatch.setitem(sys.modules, "amp_C", types.ModuleType("amp_C"))
    make_optimiser(config, groups)
    make_optimiser(OptimiserConfig(name="lamb", backend="apex"), groups)
    assert calls[0] == ("FusedAdam", {"lr": 0.1, "betas": (0.9, 0.999), "eps": 1e-8, "adam_w_mode": False})
    assert calls[1][0] == "FusedLAMB"


def test_the_body_waits_for_the_head():
    net = nn.Sequential()
    net.body, net.head = nn.Linear(3, 4), nn.Linear(4, 2)
    config = OptimiserConfig(name="adamw", lr=0.01, weight_decay=0.5, head_first=0.25)
    optimiser = make_optimiser(config, parameter_groups(net, "head", config))
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    moved = []
    for head_alone in (True, False):
        set_learning_rate(optimiser, 0.01, head_alone=head_alone)
        net(torch.ones(2, 3)).square().sum().backward()
        optimiser.step()
        moved.append({name for name, p in net.named_parameters() if not torch.equal(p, before[name])})
    assert moved[0] == {"head.weight", "head.bias"} and moved[1] == set(before)
    with pytest.raises(InputError, match="head_first is 1"):
        OptimiserConfig(head_first=1.0)


def steady_progress(**options):
    """How far 200 unit gradients move a weight, in learning rates."""
    weight = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    config = OptimiserConfig(name="sgd", lr=0.005, weight_decay=0.0, **options)
    optimiser = make_optimiser(config, [{"params": [weight], "lr": 0.005, "weight_decay": 0.0}])
    for _ in range(200):
        weight.grad = torch.ones_like(weight)
        optimiser.step()
    return -weight.item() / 0.005


def test_dampening_makes_the_steady_step_one_learning_rate():
    """As the released SDN trains: momentum 0.9, dampening 0.9, of which the first step has none."""
    assert steady_progress(dampening=0.9) == pytest.approx(200, abs=1e-9)
    assert steady_progress() == pytest.approx(sum(10 * (1 - 0.9**k) for k in range(1, 201)), abs=1e-9)
    with pytest.raises(InputError, match="nesterov"):
        OptimiserConfig(name="sgd", nesterov=True, dampening=0.5)


def test_the_device_skips_steps_of_damped_sgd_after_its_first():
    """Torch leaves the buffer uninitialised when a first step is skipped, so the host decides until one is taken."""
    weights = [nn.Parameter(torch.ones(3, dtype=torch.float64)) for _ in range(2)]
    options: dict[str, Any] = {"lr": 0.1, "weight_decay": 0.1}
    config = OptimiserConfig(name="sgd", dampening=0.9, **options)
    ours: Any = make_optimiser(config, [{"params": weights[:1], **options}])
    torchs = torch.optim.SGD(weights[1:], momentum=0.9, dampening=0.9, **options)
    assert not getattr(ours, "takes_found_inf", False)
    for step, bad in enumerate((False, True, False)):
        for weight in weights:
            weight.grad = torch.full_like(weight, torch.nan if bad else step + 1.0)
        if step:
            assert ours.takes_found_inf
            ours.grad_scale, ours.found_inf = None, torch.tensor(float(bad))
        ours.step()
        if not bad:
            torchs.step()
        torch.testing.assert_close(*weights)


def test_a_new_heads_rate_falls_when_it_is_no_longer_alone():
    """As the released SDN: the new layers alone at 100 times the rate, then everything at one rate."""
    net = nn.Sequential()
    net.body, net.head = nn.Linear(3, 4), nn.Linear(4, 2)
    config = OptimiserConfig(lr=1e-4, head_lr=100.0, head_first=0.05, weight_decay=0.0)
    optimiser = make_optimiser(config, parameter_groups(net, "head", config))
    rates = []
    for head_alone in (True, False):
        set_learning_rate(optimiser, 1e-4, head_alone=head_alone)
        rates.append({tuple(g["params"][0].shape): g["lr"] for g in optimiser.param_groups})
    assert rates == [{(4, 3): 0.0, (2, 4): pytest.approx(1e-2)}, {(4, 3): 1e-4, (2, 4): 1e-4}]


def test_parameters_without_decay_by_name():
    net = nn.Sequential()
    net.norm1, net.table = nn.LayerNorm(4), nn.Linear(4, 4)
    groups = parameter_groups(net, "", OptimiserConfig(weight_decay=0.1, no_decay=("norm",)))
    found = {g["weight_decay"]: sorted(tuple(p.shape) for p in g["params"]) for g in groups}
    assert found == {0.0: [(4,), (4,)], 0.1: [(4,), (4, 4)]}  # a linear layer's bias decays
