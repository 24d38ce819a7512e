"""The step benchmark: its peers compute the same thing, and its targets can be missed."""

import json

import pytest
import torch
from torch import nn

from unstill.bench.harness import record
from unstill.bench.harness.row import Row
from unstill.bench.harness.step_process import variant_row
from unstill.bench.harness.training_step import reference_step
from unstill.bench.suites import step
from unstill.pipeline.errors import InputError
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
    value = reference_step(net, optimiser, motion, static, target, Albar())
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
    assert good.value > 0 and good.facts["peak_mib"] > 10 and good.facts["resident_mib"] > 10
    assert good.facts["variant"] == "albar eager" and good.unit == "ms" and "error" not in good.facts
    assert "KeyError" in bad.facts["error"] and bad.value is None


def test_the_reference_order_is_one_backward_and_its_gradients_are_the_steps():
    (whole,) = step.one_pass(2)
    assert whole.kind == "all" and whole.penalise and whole.static and whole.last
    torch.manual_seed(0)
    motion, target = torch.randn(2, 3, 4, 6, 6, dtype=torch.float64), torch.tensor([3, 7])
    found = []
    for passes in ([whole], step.step_passes(Albar(), 2, True)):
        torch.manual_seed(1)
        loss_module = LossModule(Tiny().double(), Albar())
        step.backward_in_passes(loss_module, step.Batch(motion, motion[:, :, 2:3], target), passes)
        found.append([p.grad for p in loss_module.parameters()])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_variants_put_the_targets_first_and_cover_both_models():
    chosen = step.variants(step.StepBench(), gpu=True)
    assert [(v.name, v.model) for v in chosen[:4]] == [
        (name, model) for model in ("swin3d_t", "r3d_18") for name in ("albar compiled", "cross entropy compiled")
    ]
    # PyTorch's double backward of r3d_18 may take minutes a step: last
    assert [(v.name, v.model) for v in chosen[-2:]] == [
        ("reference", "r3d_18"),
        ("albar compiled, plain convolutions", "r3d_18"),
    ]
    assert {(v.model, v.batch) for v in chosen} == {("swin3d_t", 6), ("swin3d_t", 8), ("r3d_18", 32), ("r3d_18", 64)}
    only = step.variants(step.StepBench(only=("reference",), models=("r3d_18",)), gpu=True)
    assert [v.name for v in only] == ["reference"]
    with pytest.raises(InputError, match="no variant named 'fast'; expected some of albar compiled"):
        step.variants(step.StepBench(only=("fast",)), gpu=True)
    assert len(step.variants(step.StepBench(extras=True), gpu=True)) > len(chosen)


def row(name: str, ms: float, model: str = "reduced_swin", **facts) -> Row:
    kind = "cross_entropy" if name.startswith("cross entropy") else "albar"
    return variant_row(step.Variant(name, model, 2, kind=kind), dict.fromkeys(("p20", "p50", "p80"), ms), facts)


def test_a_ratio_of_times_is_taken_turn_by_turn():
    """Other work on the machine slows both of a turn: it must not appear as a difference."""
    one, two = row("a", 20.0, turns_ms=[10.0, 20.0, 33.0]), row("b", 40.0, turns_ms=[20.0, 40.0, 60.0])
    assert step.ratio(one, two, "time") == pytest.approx({"p20": 0.5, "value": 0.5, "p80": 0.53})


def test_targets_are_met_or_not(tmp_path, monkeypatch):
    facts = {"resident_mib": 100.0, "peak_mib": 50.0, "graph_breaks": 0}
    times = {"albar eager": 10.0, "albar compiled": 9.0, "albar compiled, recompute": 9.6}
    times |= {"albar compiled, one backward": 8.6, "cross entropy compiled": 2.0}
    rows = [row(name, ms, **facts) for name, ms in times.items()]
    found = {target.title.split(": ")[1]: target.met for target in step.beside_targets(rows, gpu=False)}
    met = {"cpu time": True, "cpu time, recompute": False, "cpu memory, recompute": False}
    met |= {"cpu time over one backward": True, "cpu memory over one backward": False}
    met |= {"cpu cost over cross entropy": False, "graph breaks": True}
    assert found == met
    times = {"reference": 90.0, "albar compiled": 30.1, "cross entropy compiled": 10.0}
    gpu = [row(name, ms, "r3d_18") for name, ms in times.items()]
    assert [target.met for target in step.beside_targets(gpu, gpu=True)] == [False, True]

    monkeypatch.setattr(step, "measure", lambda chosen, *_: [row(v.name, 9.0, **facts) for v in chosen])
    monkeypatch.setattr(step, "gradient_differences", lambda: [step.gradient_row("attention", True, 0.0)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = json.loads(step.run(step.StepBench(out=tmp_path)).read_text())
    assert len(result["rows"]) == 7 + len(met) + 1 and result["name"] == "step" and result["complete"]


def test_on_a_gpu_a_variant_starts_only_if_it_should_end_in_time(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(record, "machine", lambda: {"gpu": "toy"})
    monkeypatch.setattr(record, "device_name", lambda: "toy")
    measured = []

    def measure(chosen, steps, device, seconds):
        measured.extend(chosen)
        ms = None if chosen[0].kind == "reference" else dict.fromkeys(("p20", "p50", "p80"), 9.0)
        return [variant_row(v, ms, {} if ms else {"error": "out of memory"}) for v in chosen]

    monkeypatch.setattr(step, "measure", measure)
    result = json.loads(step.run(step.StepBench(out=tmp_path, seconds=100, steps=5)).read_text())
    assert "swin3d_t albar compiled x6" in result["notes"][-1]  # 259 s
    names = [(v.model, v.name) for v in measured]
    assert ("r3d_18", "albar compiled") in names and ("swin3d_t", "albar compiled") not in names
    assert "swin3d_t, official arithmetic, 6 clips: out of memory" in capsys.readouterr().out
    (cost,) = [row for row in result["rows"] if row["title"] == "r3d_18: gpu cost over cross entropy"]
    assert cost["value"] == 1 and cost["met"]
