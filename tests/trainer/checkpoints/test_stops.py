"""Signals: what is saved, with which exit code the run ends, and that it then continues to the same bits."""

import os
import signal
import sys
import threading

import pytest
from fault_scenarios import digest
from synthetic_run import loader_of, run_config

from unstill.trainer.checkpoints import files as checkpoint_files
from unstill.trainer.checkpoints import preemption
from unstill.trainer.checkpoints.checkpoint import Checkpointer
from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.monitoring.run_monitor import RunMonitor
from unstill.trainer.train import train
from unstill.trainer.validation import read_scores

pytestmark = pytest.mark.usefixtures("one_thread", "signals_as_on_a_terminal")

SAFETY_S = 600  # no assertion depends on it


def interrupt(at: dict[int, int]):
    """Presses Ctrl-C so many times in some steps."""

    def change(step, clips):
        for _ in range(at.get(step, 0)):
            os.kill(os.getpid(), signal.SIGINT)

    return change


@pytest.mark.parametrize("worth_saving", [False, True])
def test_a_ctrl_c_that_python_drops_still_stops_the_run(worth_saving, monkeypatch):
    def press(*_):
        os.kill(os.getpid(), signal.SIGINT)

    class Dropped:
        __del__ = press  # what is raised in it goes no further

    dropped = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: dropped.append(what.exc_type))
    monkeypatch.setattr(preemption.log, "warning", press)  # the second Ctrl-C, while the first one's line is written
    with preemption.StopRequest() as stop:
        stop.worth_saving = worth_saving
        Dropped()
    assert dropped == [KeyboardInterrupt] and stop.requested


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
    scored, awaited = threading.Event(), threading.Semaphore(0)
    real_finish, real_fsync = Checkpointer.finish, checkpoint_files._fsync

    def validate(model, step):
        scored.set()
        return 0.5

    def finish(saver, **options):  # the loop waits for the checkpoint that it has scored, to call it the best
        if scored.is_set():
            awaited.release()
        real_finish(saver, **options)

    def fsync(path):  # in the writer's thread
        monkeypatch.setattr(checkpoint_files, "_fsync", real_fsync)
        assert awaited.acquire(timeout=SAFETY_S)
        os.kill(os.getpid(), signal.SIGINT)
        # to say which checkpoint is the newest, it waits once more. A signal that comes just before the first wait does
        # not wake it: then the key is pressed again
        while not awaited.acquire(timeout=20):
            os.kill(os.getpid(), signal.SIGINT)
        real_fsync(path)

    monkeypatch.setattr(Checkpointer, "finish", finish)
    monkeypatch.setattr(checkpoint_files, "_fsync", fsync)
    with pytest.raises(KeyboardInterrupt, match="newest checkpoint is that of step 3, nothing is lost"):
        train(run_config(folder), make_loader=loader_of(), validate=validate)


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


def test_a_run_that_is_stopped_as_its_score_is_written_keeps_its_best(folder, monkeypatch):
    scores, scored = {3: 0.5, 6: 0.9, 9: 0.1, 10: 0.2}, RunMonitor.scored

    def scored_and_stopped(monitor, step, score):
        scored(monitor, step, score)
        if step == 6:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(RunMonitor, "scored", scored_and_stopped)
        train(run_config(folder), make_loader=loader_of(), validate=lambda model, step: scores[step])
    train(run_config(folder), make_loader=loader_of(), validate=lambda model, step: scores[step])
    assert pointed(folder / "run" / "checkpoints", "best").name == "step-00000006"
