"""What only a GPU can show: no synchronisation in a step, skipping on the device, exact resumes, CUDA graphs."""

import contextlib
import json
from dataclasses import fields, replace

import pytest
import synthetic_run
import torch
from safetensors.torch import load_file
from synthetic_run import clips_at, loader_of, make_dataset, run_config

from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.build import build
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.distributed import Ranks
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.gpu


def on_gpu(clips):
    tensors = {f.name: getattr(clips, f.name) for f in fields(clips)}
    return type(clips)(**{name: value.cuda() if torch.is_tensor(value) else value for name, value in tensors.items()})


def gpu_loader(change=None):
    inner = loader_of(change=change)

    @contextlib.contextmanager
    def make_loader(*arguments):
        with inner(*arguments) as batches:
            yield (on_gpu(clips) for clips in batches)

    return make_loader


def gpu_config(folder, **changes):
    settings = {
        "device": "cuda",
        "step": StepConfig(precision="bf16", compile="off", ema=0.9, clip_grad=1.0),
        "model": ModelConfig(name="synthetic_run:dropout_net"),
    }
    return run_config(folder, **settings | changes)


@pytest.mark.parametrize("compiled", ["off", "default"])
@pytest.mark.parametrize("fused", [False, True])
def test_a_step_that_does_not_log_never_waits_for_the_device(tmp_path, compiled, fused):
    data = DatasetInfo.read(make_dataset(tmp_path / "data"))
    settings = StepConfig(precision="bf16", compile=compiled, ema=0.9, clip_grad=1.0, fused_boundary=fused)
    ranks = Ranks(0, 1, torch.device("cuda", 0))
    state, step = build(gpu_config(tmp_path, step=settings), data, ranks, steps=10)
    batches = [on_gpu(clips_at(range(4 * n, 4 * n + 4))) for n in range(7)]
    inputs = step.inputs(iter(batches))
    for _ in range(3):  # compile both kinds of step, with and without the penalty
        step(next(inputs))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            step(next(inputs))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert state.step == 6 and state.guard.check() == 0


def test_a_bad_step_is_skipped_on_the_device(tmp_path):
    make_dataset(tmp_path / "data")

    def spoil(step, clips):
        if step in (0, 4):
            clips.label[1] = 99

    config = gpu_config(tmp_path, checkpoint=CheckpointConfig(every=1, keep=20))
    train(config, make_loader=gpu_loader(spoil))
    path = tmp_path / "run" / "checkpoints"
    before, after, later = (load_file(path / f"step-{n:08d}" / "model.safetensors") for n in (4, 5, 6))
    for name in before:
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(before[name], after[name]), name
    assert not torch.equal(after["head.weight"], later["head.weight"])
    last = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["skipped"] == 2


def test_deterministic_mode_resumes_to_the_bit(tmp_path):
    make_dataset(tmp_path / "data")
    step = StepConfig(precision="fp32", compile="off", deterministic=True)
    model = ModelConfig(name="synthetic_run:layer_norm_net")
    train(gpu_config(tmp_path, step=step, model=model, out=tmp_path / "whole"), make_loader=gpu_loader())
    config = gpu_config(tmp_path, step=step, model=model, out=tmp_path / "parts")
    with pytest.raises(Preempted):
        train(replace(config, stop_after=4), make_loader=gpu_loader())
    train(config, make_loader=gpu_loader())
    runs = [load_file(pointed(tmp_path / run / "checkpoints") / "model.safetensors") for run in ("whole", "parts")]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.parametrize("mode", ["default", "reduce-overhead"])
def test_compiled_runs_stay_near_eager_ones(tmp_path, mode):
    make_dataset(tmp_path / "data")
    finals = []
    for compiled in ("off", mode):
        step = StepConfig(precision="fp32", compile=compiled)
        model = ModelConfig(name="synthetic_run:layer_norm_net")
        train(gpu_config(tmp_path, step=step, model=model, out=tmp_path / compiled), make_loader=gpu_loader())
        finals.append(load_file(pointed(tmp_path / compiled / "checkpoints") / "model.safetensors"))
    for name, value in finals[0].items():
        torch.testing.assert_close(finals[1][name], value, rtol=0.05, atol=0.01)
    assert synthetic_run.CLASSES == finals[0]["head.weight"].shape[0]
