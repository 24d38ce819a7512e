"""The end-to-end training benchmark counts the right steps, and its run is the trainer's own."""

import json
from pathlib import Path

import pytest
import torch

from unstill.bench.harness import workload
from unstill.bench.suites import train as bench
from unstill.pipeline.errors import InputError
from unstill.trainer.methods import Baseline


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_only_whole_windows_after_the_first_of_a_turn_count():
    turns = bench.Turns(rounds=2, windows=1, steps=4)
    assert turns.total == 32 and [turns.loader(step) for step in (0, 7, 8, 15, 16, 31)] == [
        *("real", "real", "ideal", "ideal", "real", "ideal")
    ]
    # of step s: 1000 + s ms in a counted place, else nonsense
    milliseconds = [1000.0 + s if s % 8 in (4, 5, 6) else -1e9 for s in range(turns.total - 1)]
    rates = {4: 1e9, 8: 30.0, 12: 1e9, 16: 60.0, 20: 1e9, 24: 50.0, 28: 1e9, 32: 100.0}
    logged = [{"step": step, "clips_per_s": rate, "data_wait": rate / 200} for step, rate in rates.items()]
    real, ideal = bench.summary(turns, [*logged, {"step": 32, "validation": 1.0}], milliseconds)
    assert (real["clips_per_s"], ideal["clips_per_s"]) == (40.0, 80.0)
    assert real["data_wait_percent"] == 50.0 and real["loop_wait_percent"] == pytest.approx(20)
    assert real["step_ms_p50"] == (1006 + 1020) / 2 and ideal["step_ms_p50"] == (1014 + 1028) / 2 and real["steps"] == 6


def test_a_run_that_is_stopped_after_its_first_turn_has_a_row():
    turns = bench.Turns(rounds=1, windows=1, steps=2)
    logged = [{"step": 4, "clips_per_s": 30.0, "data_wait": 0.1}]
    (real,) = bench.summary(turns, logged, [5.0, 5.0, 7.0])
    assert real["loader"] == "real" and real["clips_per_s"] == 30 and real["step_ms_p50"] == 7
    assert "data_wait_percent" not in real


def test_running_out_of_memory_is_a_row_and_the_next_run_starts(tmp_path, monkeypatch):
    def measure(config, recipe, name, results):
        if not isinstance(recipe.method, Baseline):
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        results.add(bench.loader_row(bench.run_facts(recipe, name) | {"loader": "real", "clips_per_s": 3.0}))

    monkeypatch.setattr(bench, "measure", measure)
    small = workload.Workload(device="cpu", data=tmp_path)
    rows = json.loads(bench.run(bench.TrainBench(out=tmp_path, workload=small)).read_text())["rows"]
    assert [(row["method"], row.get("value"), row.get("error")) for row in rows] == [
        ("albar", None, "out of memory"),
        ("cross entropy", 3.0, None),
    ]


def test_the_published_number_is_the_target_of_its_own_recipe():
    found = workload.Workload(recipe="kinetics400_scratch", device="cuda").train_config(Path("x"), with_data=False)
    facts = bench.run_facts(found, "kinetics400_scratch") | {"clips_per_s": 170.0}
    assert bench.loader_row(facts | {"loader": "real"}).met is False
    assert bench.loader_row(facts | {"loader": "ideal"}).met is None


def test_a_window_holds_all_kinds_of_steps_and_outlasts_what_was_prepared(tmp_path):
    config = bench.TrainBench(steps=3)
    run = workload.Workload(data=tmp_path, device="cpu").train_config(tmp_path)
    ahead = run.loader.ready + run.loader.depth  # one pipeline on a CPU
    assert run.method.gp_every == 4 and bench.Turns.of(config, run).steps == 8 > ahead


@pytest.mark.slow
def test_the_benchmark_trains_with_both_loaders(tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr(workload, "MOTIONS", 16)
    small = workload.Workload(device="cpu", videos=tmp_path / "videos", batch_size=4, frames=4, size=16)
    path = bench.run(bench.TrainBench(out=tmp_path, workload=small, rounds=1, windows=1, steps=1, replay=2))
    result = json.loads(path.read_text())
    assert [(row["method"], row["loader"]) for row in result["rows"]] == [
        *(("albar", "real"), ("albar", "ideal"), ("cross entropy", "real"), ("cross entropy", "ideal"))
    ]
    for row in result["rows"]:
        assert row["value"] > 0 and 0 <= row["loop_wait_percent"] <= 100 and row["unit"] == "clips/s"
        assert (
            row["step_ms_p20"] <= row["step_ms_p50"] <= row["step_ms_p80"]
            and row["clip"] == "4x1x16"
            and row["batch"] == 4
        )
        assert ("data_wait_percent" in row) == (row["loader"] == "real") == ("bytes_per_clip" in row)


def test_an_unknown_recipe_is_refused(tmp_path):
    with pytest.raises(InputError, match="no recipe named 'swin'"):
        workload.Workload(recipe="swin").train_config(tmp_path)
