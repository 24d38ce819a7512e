"""A run that was stopped or killed, and then resumed, ends with the same bits as one that was not."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import synthetic_run
import torch
from fault_scenarios import digest
from safetensors.torch import load_file
from synthetic_run import loader_of, run_config

from unstill.pipeline.errors import InputError
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.checkpoints.files import (
    find_checkpoint,
    pointed,
)
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.optimisers.schedule import multiplier
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_twenty_runs_killed_at_random_steps_end_with_the_same_bits(tmp_path):
    script = Path(__file__).parents[1] / "fault_scenarios.py"
    seeds = [str(seed) for seed in range(20)]
    done = subprocess.run([sys.executable, script, tmp_path, *seeds], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.split("\n")[:-1]
    assert len(lines) == 21 and len(set(lines)) == 1


@pytest.mark.parametrize(
    "stops", [(1, 2, 3), *(pytest.param(s, marks=pytest.mark.slow) for s in ((3, 6, 9), (9,), (5, 6)))]
)
def test_repeated_stops_and_resumes(folder, whole, stops):
    seen = []
    for stop in stops:
        with pytest.raises(Preempted) as caught:
            train(run_config(folder, stop_after=stop), make_loader=loader_of(seen))
        assert caught.value.step == stop and caught.value.code == 75
    train(run_config(folder), make_loader=loader_of(seen))
    assert digest(folder / "run") == whole[0]
    assert seen == [(step, list(range(4 * step, 4 * step + 4))) for step in range(10)]  # each clip exactly once


def test_a_finished_run_is_left_alone(folder):
    train(run_config(folder), make_loader=loader_of())
    before = digest(folder / "run")
    seen = []
    result = train(run_config(folder), make_loader=loader_of(seen))
    assert seen == [] and digest(folder / "run") == before and result.checkpoint.name == "step-00000010"


@pytest.mark.slow
def test_other_settings_or_data_are_refused(folder):
    config = run_config(folder, stop_after=3)
    with pytest.raises(Preempted):
        train(config, make_loader=loader_of())
    with pytest.raises(InputError, match=r"optimiser\.lr was 0\.01, now 0\.02"):
        changed = dataclasses.replace(config.optimiser, lr=0.02)
        train(run_config(folder, optimiser=changed), make_loader=loader_of())
    with pytest.raises(InputError, match="holds a run already"):
        train(run_config(folder, checkpoint=CheckpointConfig(resume="never")), make_loader=loader_of())
    (folder / "data" / "dataset.json").write_text('{"another": "dataset"}')
    with pytest.raises(InputError, match="not the dataset"):
        train(run_config(folder), make_loader=loader_of())


def test_a_finished_run_is_lengthened_on_purpose_only(folder, caplog):
    caplog.set_level("INFO")
    config = run_config(folder)
    longer = dataclasses.replace(config, epochs=60 / synthetic_run.SAMPLES)
    with pytest.raises(Preempted):
        train(dataclasses.replace(config, stop_after=5), make_loader=loader_of())
    with pytest.raises(InputError, match="only a finished run is lengthened, and this one is at step 5 of 10"):
        train(dataclasses.replace(longer, extend=True), make_loader=loader_of())
    train(config, make_loader=loader_of())
    with pytest.raises(InputError, match=r"epochs was .*--extend goes on with it, --model\.weights .*run"):
        train(longer, make_loader=loader_of())
    seen = []
    with pytest.raises(Preempted):
        train(dataclasses.replace(longer, extend=True, stop_after=13), make_loader=loader_of(seen))
    assert "lengthened from 1.66667 to 2.5 epochs (10 to 15 steps)" in caplog.text
    assert "is 0.0028 now, and follows cosine from here" in caplog.text
    train(longer, make_loader=loader_of(seen))  # once begun, it is a run like any other
    assert [step for step, _ in seen] == [10, 11, 12, 13, 14]
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    schedule, lr = longer.schedule, longer.optimiser.lr
    assert {line["step"]: line["lr"] for line in lines if line["step"] > 10} == {
        step: pytest.approx(lr * multiplier(schedule, step - 1, 15)) for step in (12, 14, 15)
    }


def test_a_run_starts_from_the_weights_of_another(folder, whole):
    _, result = whole
    run = result.checkpoint.parent.parent
    config = run_config(folder, optimiser=OptimiserConfig(lr=0.0))
    for source in (run, run / "latest", run / "step-9"):
        tuned = dataclasses.replace(
            config, out=folder / source.name, model=dataclasses.replace(config.model, weights=str(source)), stop_after=1
        )
        with pytest.raises(Preempted):
            train(tuned, make_loader=loader_of())
        saved = load_file(find_checkpoint(tuned.out) / "model.safetensors")
        expected = load_file(find_checkpoint(source) / "ema.safetensors")
        assert all(torch.equal(saved[name], expected[name]) for name in saved if "conv" in name or "head" in name)
    with pytest.raises(InputError, match="step-77: no such checkpoint"):
        model = dataclasses.replace(config.model, weights=str(run / "step-77"))
        train(dataclasses.replace(config, out=folder / "none", model=model), make_loader=loader_of())


def test_the_fused_boundary_gives_the_same_run_to_the_bit(folder, whole):
    step = dataclasses.replace(run_config(folder).step, fused_boundary=True)
    seen = []
    with pytest.raises(Preempted):
        train(run_config(folder, step=step, stop_after=4), make_loader=loader_of(seen))
    train(run_config(folder, step=step), make_loader=loader_of(seen))
    assert digest(folder / "run") == whole[0]


@pytest.mark.slow
def test_parts_with_random_layers_resume_and_fuse_to_the_bit(folder):
    model = ModelConfig(name="synthetic_run:random_net")
    step = StepConfig(precision="fp32", compile="off", static_parts=2, accumulate=2)
    options = {"model": model, "batch_size": 8}
    for name, fused in (("ordinary", False), ("fused", True)):
        config = run_config(folder, out=folder / name, step=dataclasses.replace(step, fused_boundary=fused), **options)
        if fused:
            with pytest.raises(Preempted):
                train(dataclasses.replace(config, stop_after=2), make_loader=loader_of())
        train(config, make_loader=loader_of())
    runs = [load_file(pointed(folder / name / "checkpoints") / "model.safetensors") for name in ("ordinary", "fused")]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


@pytest.mark.slow
def test_memory_format_and_accumulation_survive_a_resume(folder):
    step = StepConfig(precision="fp32", compile="off", channels_last=True, accumulate=2, clip_grad=0.5)
    train(run_config(folder, step=step, out=folder / "a"), make_loader=loader_of())
    with pytest.raises(Preempted):
        train(run_config(folder, step=step, out=folder / "b", stop_after=5), make_loader=loader_of())
    train(run_config(folder, step=step, out=folder / "b"), make_loader=loader_of())
    a, b = (load_model(folder / name, trust_model_code=True)[0] for name in "ab")
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
