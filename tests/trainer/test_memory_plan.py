"""The memory of a step: the plan against torch's allocator, what it refuses, and running out."""

import logging
import re
from dataclasses import replace

import pytest
import torch
from recipe_files import make_recipe_files, with_files
from synthetic_run import CLASSES, dropout_net, layer_norm_net, loader_of, make_dataset, run_config
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from unstill.bench.harness.failures import OUT_OF_MEMORY, out_of_memory_goes_to
from unstill.bench.suites.memory import Case, compared
from unstill.kernels.attention import attention
from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.augmentations import StillMix
from unstill.trainer.augmentations.stillmix import read_bank
from unstill.trainer.build import build, build_networks
from unstill.trainer.demo.recipes import RECIPES as DEMO_RECIPES
from unstill.trainer.distributed import Ranks
from unstill.trainer.memory_check import OutOfMemory, check_memory, refuse_what_cannot_fit
from unstill.trainer.memory_plan import plan_memory
from unstill.trainer.memory_trace import tracing
from unstill.trainer.methods import Baseline
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.recipes import RECIPES
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

EAGER = StepConfig(precision="fp32", compile="off")


class SoftmaxNet(nn.Module):
    """One matrix product and a softmax over many columns."""

    def __init__(self, classes: int, columns: int = 4096):
        super().__init__()
        self.columns, self.head = nn.Linear(3, columns), nn.Linear(columns, classes)

    def forward(self, x):
        return self.head(self.columns(x.mean((2, 3, 4))).softmax(1))


class Giant(nn.Module):
    """Asks for 32 TiB."""

    def __init__(self, classes: int):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        return self.head(x.mean((2, 3, 4))) + 0 * torch.empty(1 << 43).sum()


class ReadsValues(nn.Module):
    """Cannot run on tensors without data."""

    def __init__(self, classes: int):
        super().__init__()
        self.head = nn.Linear(3, classes)

    def forward(self, x):
        assert x.detach().numpy().size
        return self.head(x.mean((2, 3, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["cross entropy", "albar"])
@pytest.mark.parametrize(
    ("model", "frames", "size", "batch", "step", "error"),
    [
        # six clips: with two, what closed attention takes inside its ops (chunks of 1 MiB, not planned) is 7 to 19 %
        ("reduced_swin", 8, 56, 6, EAGER, 0.01),
        ("reduced_swin", 8, 56, 6, replace(EAGER, precision="bf16"), 0.02),
        ("motion_cnn", 8, 64, 8, replace(EAGER, accumulate=2, ema=0.9), 0.15),
    ],
)
def test_the_allocator_takes_what_was_planned(one_thread, model, frames, size, batch, step, error, method):
    row = compared(Case(model, frames, size, batch, method, step))
    assert row.facts["ratio"] == pytest.approx(1, abs=error), dict(row.facts)


def test_row_statistics_of_fused_attention_live_as_long_as_its_queries():
    with FakeTensorMode(), tracing(101, 101, cuda=True) as trace:
        q = torch.empty(101, 2, 5, 16, dtype=torch.bfloat16)
        out = attention(q, q, q)
        alive = trace.lines().all[-1].tolist()
        del q
        after = trace.lines().all[-1].tolist()
    each = 2 * 5 * 16 * 2
    assert alive == [0, 2 * each + 4 * 2 * 5] and after == [0, each] and out.nbytes == 101 * each


@pytest.mark.slow
def test_buffers_inside_convolutions_are_planned(one_thread):
    row = compared(Case("r3d_18", 8, 56, 2, "cross entropy", EAGER))  # 0.72 of the allocator's peak without them
    assert row.facts["ratio"] == pytest.approx(1, abs=0.15), dict(row.facts)


@pytest.fixture
def plan_of(tmp_path):
    """Plans a small run; keyword options change its configuration."""

    def plan(model=None, cuda=False, static_parts=None, **changes):
        model = (model or dropout_net)(CLASSES).train()
        options = {"cuda": cuda, "static_parts": static_parts}
        return plan_memory(run_config(tmp_path, **changes), model, classes=CLASSES, **options)

    return plan


def test_a_gpu_computes_softmax_in_float32(plan_of):
    options = {"step": replace(EAGER, precision="bf16"), "method": Baseline()}
    cpu, gpu = (plan_of(SoftmaxNet, cuda, **options) for cuda in (False, True))
    # saved for the backward: the softmax itself in float32 (4 bytes), and its bf16 copy for the last layer (2 bytes)
    assert cpu.saved[1] - cpu.resident[1] == pytest.approx(2 * 4096, rel=0.05)
    assert gpu.saved[1] - gpu.resident[1] == pytest.approx(6 * 4096, rel=0.05)


def test_weights_gradients_and_moments_are_fixed(plan_of):
    weights = 4 * sum(p.numel() for p in SoftmaxNet(CLASSES).parameters())
    plain, averaged = (plan_of(SoftmaxNet, method=Baseline(), step=replace(EAGER, ema=ema)) for ema in (0.0, 0.9))
    assert plain.resident[0] == pytest.approx(3 * weights, rel=0.01)  # and AdamW's two moments
    assert averaged.resident[0] == pytest.approx(4 * weights, rel=0.01)
    assert plain.peak(1) - plain.queue[0] > 4 * weights  # and the gradients


def test_the_largest_batch_is_the_largest_that_fits(plan_of):
    plan = plan_of()
    for memory in (plan.peak(1), 1.5 * plan.peak(7), 1 << 30):
        most = plan.largest_batch(memory)
        assert plan.peak(most) <= memory < plan.peak(most + 1)
    assert plan.largest_batch(plan.peak(1) - 1) == 0


def test_what_is_offered_instead_fits(tmp_path, plan_of):
    config = run_config(tmp_path, batch_size=48, step=EAGER, memory_check="on")
    plan = plan_of(step=EAGER)
    memory = plan.peak(20)
    with pytest.raises(OutOfMemory, match="--memory-check off") as refusal:
        refuse_what_cannot_fit(config, plan, 2, memory, "this card")  # 24 clips in each of two processes
    line = str(refusal.value)
    assert "\n" not in line and int(re.search(r"--batch-size (\d+)", line)[1]) == 2 * 20
    parts = int(re.search(r"--step.accumulate (\d+)", line)[1])
    assert plan_of(step=replace(EAGER, accumulate=parts)).peak(24) <= memory
    refuse_what_cannot_fit(replace(config, batch_size=40), plan, 2, memory, "this card")


@pytest.mark.slow
def test_static_parts_are_offered_where_they_are_enough(tmp_path, plan_of):
    in_parts = lambda parts: plan_of(layer_norm_net, static_parts=parts, step=EAGER)  # noqa: E731
    one, two = (in_parts(parts).peak(4) for parts in (1, 2))
    assert one > 1.2 * two
    config = run_config(tmp_path, batch_size=4, step=EAGER, memory_check="on")
    with pytest.raises(OutOfMemory, match=r"--step\.static-parts 2"):
        refuse_what_cannot_fit(config, in_parts(1), 1, two, "this card", in_parts)
    with pytest.raises(OutOfMemory) as refusal:  # the motion pass alone needs more
        refuse_what_cannot_fit(config, in_parts(1), 1, in_parts(4).peak(4) - 1, "this card", in_parts)
    assert "static-parts" not in str(refusal.value)


@pytest.mark.slow
def test_as_few_static_parts_as_fit_are_taken(tmp_path, monkeypatch):
    data, ranks = DatasetInfo.read(make_dataset(tmp_path / "data")), Ranks(0, 1, torch.device("cpu"))
    options = {"model": ModelConfig(name="synthetic_run:layer_norm_net"), "memory_check": "on"}
    config = run_config(tmp_path, step=replace(EAGER, static_parts=2), **options)
    state, step = build(config, data, ranks, steps=10)  # plans are of the network as it is trained, layers closed
    room = check_memory(config, state, step, CLASSES, ranks).peak(4)
    monkeypatch.setattr("unstill.trainer.memory_check.device_memory", lambda device: (room, "this card"))
    for settings, parts in ((EAGER, 2), (replace(EAGER, static_parts=4), 4)):
        config = run_config(tmp_path, step=settings, **options)
        state, step = build(config, data, ranks, steps=10)
        assert check_memory(config, state, step, CLASSES, ranks).peak(4) <= room and step.static_parts == parts
    config = run_config(tmp_path, step=replace(EAGER, static_parts=1), **options)
    state, step = build(config, data, ranks, steps=10)
    with pytest.raises(OutOfMemory, match=r"--step\.static-parts 2"):
        check_memory(config, state, step, CLASSES, ranks)


def test_planning_changes_neither_the_network_nor_the_draws(plan_of):
    torch.manual_seed(3)
    model = dropout_net(CLASSES).train()
    before, draws = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    plan_of(lambda classes: model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), draws) and all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", [recipe.__name__ for recipe in DEMO_RECIPES] + ["a bank of stills"])
def test_every_recipe_of_the_demonstration_can_be_traced(name, tmp_path, named_data):
    config = RECIPES["demo_stillmix" if name == "a bank of stills" else name]()
    if name == "a bank of stills":
        config = replace(config, augmentation=StillMix(bank=tmp_path / "stills.safetensors"))
        read_bank.cache_clear()  # the plan has to read it
    config = with_files(replace(config, device="cpu"), make_recipe_files(tmp_path))
    data = DatasetInfo(samples=24, classes=tuple(f"class {n}" for n in range(CLASSES)), digest="")
    tables = config.method.tables(config.data)
    networks = build_networks(config, data, torch.device("cpu"), tables)
    assert plan_memory(config, *networks, tables, classes=CLASSES).per_clip > 0


def test_a_network_that_is_on_a_gpu_already_has_the_same_plan(plan_of):
    """A run plans when its networks are on their device; here one without memory stands for the GPU."""

    def network(device):
        with torch.device(device):
            first, second = nn.Conv3d(3, 8, 3, padding=1), nn.Conv3d(8, 8, 3, padding=1)
            second.bias = first.bias
            layers = first, nn.BatchNorm3d(8), nn.ReLU(), second, nn.AdaptiveAvgPool3d(1), nn.Flatten()
            return nn.Sequential(*layers, nn.Linear(8, CLASSES))

    plans = [plan_of(lambda classes, device=device: network(device)) for device in ("cpu", "meta")]
    assert plans[0] == plans[1] and plans[0].per_clip > 0


def small_run(folder, model, **changes):
    make_dataset(folder / "data")
    config = run_config(folder, method=Baseline(), step=EAGER, **{"memory_check": "on"} | changes)
    return replace(config, model=replace(config.model, name=f"{__name__}:{model}"))


def test_a_run_that_cannot_fit_is_refused_before_its_first_step(tmp_path):
    config = small_run(tmp_path, "Giant")
    with pytest.raises(OutOfMemory, match="needs about"):
        train(config, make_loader=loader_of())
    assert not config.out.exists()


def test_running_out_of_memory_is_one_line_with_remedies(tmp_path):
    with pytest.raises(OutOfMemory, match=r"--batch-size 2 or --step.accumulate 2.*DefaultCPUAllocator") as error:
        train(small_run(tmp_path, "Giant", memory_check="off"), make_loader=loader_of())
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_a_step_that_cannot_be_traced_is_trained_all_the_same(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="unstill"):
        assert train(small_run(tmp_path, "ReadsValues"), make_loader=loader_of()).steps == 10
    assert "memory: unknown" in caplog.text


def test_a_benchmark_goes_on_after_running_out_of_memory():
    seen = []
    with out_of_memory_goes_to(seen.append):
        torch.empty(1 << 50)
    assert seen == [OUT_OF_MEMORY]
    with pytest.raises(RuntimeError, match="shape"), out_of_memory_goes_to(seen.append):
        torch.zeros(2) @ torch.zeros(3, 3)
    assert len(seen) == 1
