"""Which checkpoints are kept, how they are scored and found, and what is loaded from them."""

import dataclasses
import json
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
    run_folder,
    steps_on_disk,
)
from unstill.trainer.evaluation.subject import load_subject
from unstill.trainer.inputs.config import InputConfig
from unstill.trainer.methods import Baseline
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_old_checkpoints_are_pruned_but_not_the_best(folder):
    scores = {2: 0.1, 4: 0.9, 6: 0.5, 8: 0.3, 10: 0.2}
    settings = CheckpointConfig(every=2, keep=2)
    train(run_config(folder, checkpoint=settings), make_loader=loader_of(), validate=lambda model, step: scores[step])
    checkpoints = folder / "run" / "checkpoints"
    assert [path.name[-2:] for path in steps_on_disk(checkpoints)] == ["10", "08", "04"]
    assert pointed(checkpoints, "best").name == "step-00000004"
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["validation"] for line in lines if "validation" in line] == list(scores.values())


def test_a_checkpoint_is_saved_before_it_is_scored_and_a_failed_scoring_is_a_warning(folder, whole, caplog):
    saved = []

    def validate(model, step):
        saved.append(pointed(folder / "run" / "checkpoints"))
        if step == 6:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return float("nan") if step == 9 else float(step)

    settings = CheckpointConfig(every=3, background=False)
    train(run_config(folder, checkpoint=settings), make_loader=loader_of(), validate=validate)
    assert [path.name[-2:] for path in saved] == ["03", "06", "09", "10"]
    assert "step 6 has no validation score: DefaultCPUAllocator" in caplog.text and "step 3" not in caplog.text
    assert pointed(folder / "run" / "checkpoints", "best").name == "step-00000010"
    assert Path(digest(folder / "run").split()[0]).name == Path(whole[0].split()[0]).name


def test_latest_best_and_steps_are_paths(folder, whole):
    scores = {3: 0.5, 6: 0.9, 9: 0.1, 10: 0.2}
    validate = lambda model, step: scores[step]  # noqa: E731
    train(run_config(folder, checkpoint=CheckpointConfig(every=3, keep=9)), make_loader=loader_of(), validate=validate)
    run = folder / "run"
    names = {"latest": "10", "best": "06", "step-3": "03", "step-00000009": "09", "": "10"}
    for name, step in names.items():
        for place in (run, run / "checkpoints"):
            found = find_checkpoint(place / name)
            assert found == run / "checkpoints" / f"step-000000{step}"
            assert run_folder(place / name) == run
    assert find_checkpoint(run / "checkpoints" / "step-00000003").name == "step-00000003"
    with pytest.raises(InputError, match=r"run/step-4: no such checkpoint; .* has latest, best, step-00000010, step-0"):
        find_checkpoint(run / "step-4")
    with pytest.raises(InputError, match=r"no checkpoint in it; .*; .*run is one"):
        find_checkpoint(folder)
    subject = load_subject(run / "best", trust_model_code=True)
    assert (subject.name, subject.origin.step, subject.origin.pointers) == ("run", 6, ("best",))
    assert "run, step 6 (best); ALBAR, synthetic_run:dropout_net, moving average" in str(subject.origin)


def test_a_run_without_one_finite_step_fails(folder):
    config = run_config(folder, inputs=InputConfig(), method=Baseline(), checkpoint=CheckpointConfig(every=0))
    bad = dataclasses.replace(config, optimiser=dataclasses.replace(config.optimiser, lr=1e30))
    with pytest.raises(
        InputError, match=r"[6-9] of 10 steps .* not finite .* among them the last [6-9]: .* not learned"
    ):
        train(bad, make_loader=loader_of())
    assert pointed(folder / "run" / "checkpoints") is None  # it does not pass for a trained model


def test_a_bad_validation_set_is_refused_before_anything_is_built(folder):
    seen = []
    with pytest.raises(InputError, match="nowhere"):
        train(run_config(folder, validation=folder / "nowhere"), make_loader=loader_of(seen))
    assert seen == [] and not (folder / "run").exists()


def test_a_trained_model_loads_with_its_average(folder, whole):
    _, result = whole
    model, config, classes = load_model(result.checkpoint, trust_model_code=True)
    assert classes == [f"class {i}" for i in range(4)] and not model.training
    assert config.method == run_config(folder).method and config.clip.frames == synthetic_run.FRAMES
    by_run, _, _ = load_model(result.checkpoint.parent.parent, trust_model_code=True)
    for a, b in zip(model.state_dict().values(), by_run.state_dict().values(), strict=True):
        assert torch.equal(a, b)

    average, last = load_file(result.checkpoint / "ema.safetensors"), load_file(result.checkpoint / "model.safetensors")
    assert torch.equal(model.head.weight, average["head.weight"])
    assert not torch.equal(average["head.weight"], last["head.weight"])
    with pytest.raises(InputError, match="no checkpoint"):
        load_model(folder)
