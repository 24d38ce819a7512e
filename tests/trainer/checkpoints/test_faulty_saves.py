"""Saves that are interrupted, fail, or are damaged afterwards: an earlier checkpoint is left, and is found."""

import json
import os
import shutil
import threading
from pathlib import Path

import pytest
from fault_scenarios import digest
from synthetic_run import loader_of, run_config

from unstill.pipeline.errors import InputError
from unstill.trainer.checkpoints import checkpoint
from unstill.trainer.checkpoints import files as checkpoint_files
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.checkpoints.config import CheckpointConfig
from unstill.trainer.checkpoints.files import (
    pointed,
    steps_on_disk,
    verify_checkpoint,
)
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


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
def test_a_background_save_does_not_hold_up_the_steps(folder, whole, monkeypatch):
    # the writer is stuck until two more steps are done; were the loop to wait for it, this would never end
    go_on, real_write, written_late = threading.Event(), checkpoint.write_checkpoint, []

    def write(folder, step, files):
        if step == 3:
            written_late.append(go_on.wait(timeout=600))
        return real_write(folder, step, files)

    def change(step, clips):
        if step == 5:
            go_on.set()

    monkeypatch.setattr(checkpoint, "write_checkpoint", write)
    train(run_config(folder), make_loader=loader_of(change=change))
    assert written_late == [True] and digest(folder / "run") == whole[0]
