"""A run that was stopped, killed or could not save ends with the same bits as one that was not."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import synthetic_run
import torch
from fault_scenarios import digest
from safetensors.torch import load_file
from synthetic_run import loader_of, make_dataset, run_config

from unstill.pipeline.errors import InputError
from unstill.trainer.checkpoints import checkpoint
from unstill.trainer.checkpoints import files as checkpoint_files
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.checkpoints.files import (
    find_checkpoint,
    pointed,
    run_folder,
    steps_on_disk,
    verify_checkpoint,
)
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.evaluation.subject import load_subject
from unstill.trainer.inputs.config import InputConfig
from unstill.trainer.methods import Baseline
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.optimisers.config import OptimiserConfig
from unstill.trainer.optimisers.schedule import multiplier
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train
from unstill.trainer.validation import read_scores

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def signals_as_on_a_terminal():
    """Ctrl-C and SIGHUP are ignored where the tests run in the background, and what is ignored stays so."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path / "data")
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Digest of an uninterrupted run, and its final checkpoint's folder."""
    folder = tmp_path_factory.mktemp("whole")
    make_dataset(folder / "data")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = train(run_config(folder), make_loader=loader_of())
    torch.set_num_threads(threads)
    return digest(folder / "run"), result


@pytest.mark.slow
def test_twenty_runs_killed_at_random_steps_end_with_the_same_bits(tmp_path):
    script = Path(__file__).parents[1] / "fault_scenarios.py"
    seeds = [str(seed) for seed in range(20)]
    done = subprocess.run([sys.executable, script, tmp_path, *seeds], capture_output=True, text=True, timeout=300)
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_saves_once_and_exits_75(folder, whole, number):
    def change(step, clips):
        if step == 4:
            os.kill(os.getpid(), number)
            os.kill(os.getpid(), number)  # an impatient scheduler

    handler = signal.getsignal(number)
    with pytest.raises(Preempted) as caught:
        train(run_config(folder), make_loader=loader_of(change=change))
    assert caught.value.code == 75 and caught.value.step == 5
    assert signal.getsignal(number) is handler
    assert pointed(folder / "run" / "checkpoints").name == "step-00000005"
    train(run_config(folder), make_loader=loader_of())
    assert digest(folder / "run") == whole[0]


def interrupt(at: dict[int, int]):
    """Presses Ctrl-C so many times in some steps."""

    def change(step, clips):
        for _ in range(at.get(step, 0)):
            os.kill(os.getpid(), signal.SIGINT)

    return change


def test_the_first_ctrl_c_saves_and_the_second_aborts(folder, whole):
    with pytest.raises(Preempted) as caught:
        train(run_config(folder), make_loader=loader_of(change=interrupt({4: 1})))
    assert caught.value.code == 75 and pointed(folder / "run" / "checkpoints").name == "step-00000005"
    with pytest.raises(KeyboardInterrupt, match="newest checkpoint is that of step 6, the 1 steps since then are lost"):
        train(run_config(folder), make_loader=loader_of(change=interrupt({7: 2})))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    train(run_config(folder), make_loader=loader_of())
    assert digest(folder / "run") == whole[0]


def test_ctrl_c_before_there_is_anything_to_save_ends_at_once(folder):
    with pytest.raises(KeyboardInterrupt, match="before the first step; nothing is lost"):
        train(run_config(folder), make_loader=loader_of(change=interrupt({0: 1})))


def test_ctrl_c_while_a_save_is_awaited_says_what_was_saved(folder, monkeypatch):
    real_fsync = checkpoint_files._fsync

    def fsync(path):  # in the writer's thread
        monkeypatch.setattr(checkpoint_files, "_fsync", real_fsync)
        time.sleep(0.3)  # the loop scores the checkpoint and waits for it, to call it the best
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.5)
        real_fsync(path)

    monkeypatch.setattr(checkpoint_files, "_fsync", fsync)
    with pytest.raises(KeyboardInterrupt, match="newest checkpoint is that of step 3, nothing is lost"):
        train(run_config(folder), make_loader=loader_of(), validate=lambda model, step: 0.5)


def test_under_torchrun_one_press_that_comes_twice_saves(folder, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "a")  # torchrun passes on what the terminal has sent to all
    with pytest.raises(Preempted):
        train(run_config(folder), make_loader=loader_of(change=interrupt({4: 2})))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_signals_that_are_ignored_stay_ignored(folder, whole, number):
    before = signal.signal(number, signal.SIG_IGN)  # nohup, or a job in the background
    try:
        train(run_config(folder), make_loader=loader_of(change=lambda step, clips: os.kill(os.getpid(), number)))
    finally:
        signal.signal(number, before)
    assert digest(folder / "run") == whole[0]


class Killed(BaseException):
    """Stands for SIGKILL inside a save: nothing catches it, and the clean-up it triggers is undone below."""


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["first file", "manifest", "before rename", "before latest"])
def test_a_kill_inside_a_save_leaves_the_previous_checkpoint(folder, whole, moment, monkeypatch):
    with pytest.raises(Preempted):
        train(run_config(folder, stop_after=3), make_loader=loader_of())

    real_fsync, real_rename = checkpoint_files._fsync, os.rename
    monkeypatch.setattr(shutil, "rmtree", lambda *a, **k: None)  # a killed process cleans nothing

    def fsync(path):
        if (moment, path.name) in (("first file", "model.safetensors"), ("manifest", "manifest.json")):
            raise Killed
        real_fsync(path)

    def rename(source, target):
        if moment == "before rename":
            raise Killed
        real_rename(source, target)

    def point(*_):
        raise Killed

    monkeypatch.setattr(checkpoint_files, "_fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    if moment == "before latest":
        monkeypatch.setattr(checkpoint_files, "point", point)
    with pytest.raises(Killed):
        train(run_config(folder, stop_after=6), make_loader=loader_of())
    monkeypatch.undo()

    checkpoints = folder / "run" / "checkpoints"
    assert pointed(checkpoints).name == "step-00000003"
    for path in steps_on_disk(checkpoints):
        verify_checkpoint(path)  # whatever looks like a checkpoint is one
    train(run_config(folder), make_loader=loader_of())
    assert digest(folder / "run") == whole[0]
    assert not [path for path in checkpoints.iterdir() if path.name.startswith(".")]  # swept


@pytest.mark.slow
@pytest.mark.parametrize("background", [True, False])
def test_a_full_disk_costs_a_warning_and_then_the_run(folder, whole, monkeypatch, caplog, background):
    real_write, fail = checkpoint_files._fsync, {"at": ()}

    def fsync(path):
        step = int(path.parent.name.split("-")[1].split(".")[0]) if "step-" in path.parent.name else -1
        if step in fail["at"]:
            raise OSError(28, "No space left on device")
        real_write(path)

    monkeypatch.setattr(checkpoint_files, "_fsync", fsync)
    fail["at"] = (6,)
    settings = CheckpointConfig(every=3, max_failed=2, background=background)
    train(run_config(folder, checkpoint=settings), make_loader=loader_of())
    assert digest(folder / "run") == whole[0]
    assert "No space left" in caplog.text and "training goes on" in caplog.text

    shutil.rmtree(folder / "run")
    fail["at"] = (6, 9)
    with pytest.raises(InputError, match="free some space"):
        train(run_config(folder, checkpoint=settings), make_loader=loader_of())
    assert pointed(folder / "run" / "checkpoints").name == "step-00000003"
    fail["at"] = ()
    train(run_config(folder, checkpoint=settings), make_loader=loader_of())
    assert digest(folder / "run") == whole[0]


def test_an_unwritable_folder_is_refused_before_the_first_step(folder):
    (folder / "run").write_text("a file")
    with pytest.raises(InputError, match=r"run: cannot write .* --out"):
        train(run_config(folder), make_loader=loader_of())


def damage(path: Path, how: str) -> None:
    file = path / {"weights": "model.safetensors", "config": "config.json"}.get(how, "state.pt")
    data = bytearray(file.read_bytes())
    if how == "missing":
        file.unlink()
    elif how == "truncated":
        file.write_bytes(data[:-7])
    elif how == "schema":
        manifest = json.loads((path / "manifest.json").read_text())
        (path / "manifest.json").write_text(json.dumps(manifest | {"schema": 99}))
    elif how == "manifest":
        (path / "manifest.json").write_text("{")
    else:
        data[len(data) // 2] ^= 1
        file.write_bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["weights", "state", "config", "truncated", "missing", "schema", "manifest"])
def test_a_damaged_checkpoint_is_refused_by_name_and_auto_falls_back(folder, whole, how, caplog):
    with pytest.raises(Preempted):
        train(run_config(folder, stop_after=6), make_loader=loader_of())
    checkpoints = folder / "run" / "checkpoints"
    damage(checkpoints / "step-00000006", how)
    with pytest.raises(InputError, match="step-00000006"):
        train(run_config(folder), make_loader=loader_of())
    with pytest.raises(InputError, match="step-00000006"):
        load_model(folder / "run")
    auto = CheckpointConfig(every=3, resume="auto")
    train(run_config(folder, checkpoint=auto), make_loader=loader_of())
    assert "falling back" in caplog.text and digest(folder / "run") == whole[0]


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


def test_a_run_that_was_stopped_while_scoring_is_scored_when_it_goes_on(folder):
    scores = {3: 0.5, 6: 0.9, 9: 0.1, 10: 0.2}

    def stopped_at(stop):
        def validate(model, step):
            assert not model.training
            if step == stop:
                os.kill(os.getpid(), signal.SIGINT)  # nothing is lost: the first one ends it at once
            return scores[step]

        return validate

    with pytest.raises(KeyboardInterrupt, match="step 6, nothing is lost"):
        train(run_config(folder), make_loader=loader_of(), validate=stopped_at(6))
    assert pointed(folder / "run" / "checkpoints", "best").name == "step-00000003"
    train(run_config(folder), make_loader=loader_of(), validate=stopped_at(None))
    assert pointed(folder / "run" / "checkpoints", "best").name == "step-00000006"
    assert read_scores(folder / "run" / "metrics.jsonl") == scores


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
    subject = load_subject(run / "best", trust_model_code=True)
    assert (subject.name, subject.origin.step, subject.origin.pointers) == ("run", 6, ("best",))
    assert "run, step 6 (best); albar, synthetic_run:dropout_net, moving average" in str(subject.origin)


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
    from safetensors.torch import load_file

    average, last = load_file(result.checkpoint / "ema.safetensors"), load_file(result.checkpoint / "model.safetensors")
    assert torch.equal(model.head.weight, average["head.weight"])
    assert not torch.equal(average["head.weight"], last["head.weight"])
    with pytest.raises(InputError, match="no checkpoint"):
        load_model(folder)


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


@pytest.mark.slow
def test_a_background_save_does_not_hold_up_the_steps(folder, whole, monkeypatch):
    # the writer is stuck until two more steps are done; were the loop to wait for it, this would never end
    go_on, real_write, written_late = threading.Event(), checkpoint.write_checkpoint, []

    def write(folder, step, files):
        if step == 3:
            written_late.append(go_on.wait(timeout=60))
        return real_write(folder, step, files)

    def change(step, clips):
        if step == 5:
            go_on.set()

    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    train(run_config(folder), make_loader=loader_of(change=change))
    assert written_late == [True] and digest(folder / "run") == whole[0]
