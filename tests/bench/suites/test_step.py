"""The step benchmark: its peers compute the same thing, and its bars can fail."""

import json

import pytest
import torch
from torch import nn

from unstill.bench.suites import step
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv3d(3, 4, 3), nn.Linear(4, 51)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).mean((2, 3, 4)))


def test_the_reference_step_has_our_gradients():
    torch.manual_seed(0)
    net, motion, target = Tiny().double(), torch.randn(2, 3, 4, 6, 6, dtype=torch.float64), torch.tensor([3, 7])
    static = motion[:, :, 2:3].expand_as(motion).contiguous()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.0)
    value = step.reference_step(net, optimiser, motion, static, target, Albar())
    theirs = [p.grad.clone() for p in net.parameters()]
    optimiser.zero_grad()
    loss, *_ = LossModule(net, Albar())(motion, static.requires_grad_(True), target, True)
    loss.backward()
    assert value == pytest.approx(float(loss.detach()), rel=1e-9)
    for a, b in zip(theirs, net.parameters(), strict=True):
        torch.testing.assert_close(a, b.grad, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_variants_step_in_processes_of_their_own_and_a_failure_is_a_row():
    chosen = [step.Variant("albar eager", "reduced_swin", 1), step.Variant("broken", "no such model", 1)]
    good, bad = step.measure(chosen, 2, "cpu")
    assert good["p50"] > 0 and good["peak_mib"] > 10 and good["resident_mib"] > 10
    assert good["variant"] == "albar eager" and good["unit"] == "ms" and "error" not in good
    assert "KeyError" in bad["error"] and "p50" not in bad


def test_variants_put_the_bars_first_and_cover_both_models():
    chosen = step.variants(step.StepBench(), gpu=True)
    assert [(v.name, v.model) for v in chosen[:6]] == [
        (name, model)
        for model in ("swin3d_t", "r3d_18")
        for name in ("reference", "albar compiled", "cross entropy compiled")
    ]
    assert {v.batch for v in chosen} == {16, 32, 64} and any(v.closed_conv for v in chosen)
    assert len(step.variants(step.StepBench(extras=True), gpu=True)) > len(chosen)


def test_bars_are_held_or_not(tmp_path, monkeypatch):
    row = {"model": "reduced_swin", "batch": 2, "resident_mib": 100.0, "graph_breaks": 0}
    names = {"albar eager": 10.0, "albar compiled": 9.0, "albar compiled, recompute": 9.6}
    rows = [row | {"variant": name, "p50": p50} for name, p50 in names.items()]
    found = {bar["bar"].split(": ")[1]: bar["held"] for bar in step.held_against_bars(rows, gpu=False)}
    held = {"cpu time": True, "cpu time, recompute": False, "cpu memory, recompute": False, "graph breaks": True}
    assert found == held
    gpu = [
        {"model": "r3d_18", "variant": name, "p50": time}
        for name, time in (("reference", 90.0), ("albar compiled", 30.1), ("cross entropy compiled", 10.0))
    ]
    assert [bar["held"] for bar in step.held_against_bars(gpu, gpu=True)] == [False, True]

    monkeypatch.setattr(step, "measure", lambda chosen, *_: [row | {"variant": v.name, "p50": 9.0} for v in chosen])
    monkeypatch.setattr(step, "gradient_difference", lambda: {"bar": "x", "value": 0.0, "at_most": 1, "held": True})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = json.loads(step.run(step.StepBench(out=tmp_path)).read_text())
    assert len(result["rows"]) == 5 + len(held) + 1 and result["name"] == "step"
