"""Steps that are not finite are skipped without a trace, counted, and end the run when they do not stop."""

import json

import pytest
import torch
from safetensors.torch import load_file
from synthetic_run import loader_of, make_dataset, run_config
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unstill.pipeline.errors import InputError
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.optimisers.ema import WeightAverage
from unstill.trainer.optimisers.nonfinite import NonFiniteGuard
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def spoil(*steps):
    """A label outside of the classes makes the loss of its row NaN."""

    def change(step, clips):
        if step in steps:
            clips.label[1] = 99

    return change


def test_a_bad_step_changes_nothing_and_is_counted(tmp_path):
    make_dataset(tmp_path / "data")
    config = run_config(tmp_path, checkpoint=CheckpointConfig(every=1, keep=20))
    train(config, make_loader=loader_of(change=spoil(0, 4)))
    checkpoints = tmp_path / "run" / "checkpoints"
    weights = [load_file(checkpoints / f"step-{step:08d}" / "model.safetensors") for step in (4, 5, 6)]
    for name, before in weights[0].items():
        if not name.endswith("num_batches_tracked"):  # counts forwards; nothing reads it
            assert torch.equal(before, weights[1][name]), name  # batch norm's running statistics among them
    assert not torch.equal(weights[1]["head.weight"], weights[2]["head.weight"])
    rests = [torch.load(checkpoints / f"step-{step:08d}" / "state.pt", weights_only=True) for step in (4, 5)]
    for before, after in zip(*(rest["optimiser"]["state"].values() for rest in rests), strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)
    records = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [record["skipped"] for record in records] == [1, 1, 2, 2, 2]
    assert [record["loss"] is None for record in records] == [True, False, True, False, False]
    final = load_file(checkpoints / "step-00000010" / "model.safetensors")
    assert all(value.isfinite().all() for value in final.values())


def test_too_many_in_a_row_stop_the_run(tmp_path):
    make_dataset(tmp_path / "data")
    with pytest.raises(InputError, match=r"3 steps in a row .* --optimiser\.lr or --method\.w-adv,"):
        train(run_config(tmp_path, max_skipped=3), make_loader=loader_of(change=spoil(3, 4, 5)))
    (tmp_path / "run").rename(tmp_path / "first")
    train(run_config(tmp_path, max_skipped=3), make_loader=loader_of(change=spoil(2, 3, 5, 6)))


def test_no_step_writes_its_buffers_as_text(monkeypatch):
    """A call that torch resolves among overloads writes its arguments into the errors of those that do not fit: 1,016
    ms for 120 buffers on a CPU, and on a GPU a wait for each number."""
    module = nn.Sequential(*(nn.BatchNorm3d(4) for _ in range(3)))
    guard = NonFiniteGuard(module, torch.device("cpu"), limit=3)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)

    def refuse(tensor, **_):
        raise AssertionError("a tensor is written as text")

    monkeypatch.setattr(torch.Tensor, "__repr__", refuse)
    guard.before()
    guard.update(optimiser, guard.judge(torch.ones(()), torch.ones(())))


class Buffers(nn.Module):
    def __init__(self, count):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))
        for n in range(count):
            self.register_buffer(f"b{n}", torch.randn(5, dtype=(torch.float32, torch.float64, torch.bfloat16)[n % 3]))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


def test_buffers_come_back_to_the_bit_whatever_a_bad_step_left():
    module = Buffers(6)
    guard = NonFiniteGuard(module, torch.device("cpu"), limit=9)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
    left = [torch.nan, torch.inf, -3e38, 0.0, 1.5, -torch.nan]
    for bad in (1.0, 0.0):
        before = [b.clone() for b in module.buffers()]
        guard.before()
        for buffer, value in zip(list(module.buffers())[:6], left, strict=True):
            buffer.fill_(value)
        after = [b.clone() for b in module.buffers()]
        guard.update(optimiser, torch.tensor(bad))
        for buffer, expected in zip(module.buffers(), before if bad else after, strict=True):
            assert torch.equal(buffer.view(-1).view(torch.uint8), expected.view(-1).view(torch.uint8))


class Launches(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **kwargs or {})


def test_guard_and_average_take_as_many_launches_for_many_tensors_as_for_few():
    counts = set()
    for tensors in (3, 30):
        module = Buffers(tensors)
        guard, average = NonFiniteGuard(module, torch.device("cpu"), limit=9), WeightAverage(module, 0.9)
        optimiser = torch.optim.SGD(module.parameters(), lr=0.1)
        with Launches() as launches:
            guard.before()
            guard.update(optimiser, torch.tensor(1.0))
            average.update()
        counts.add(launches.count)
    assert len(counts) == 1
