"""Two processes train as one: gradients, order, skipped steps, and what happens when one of them dies."""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from synthetic_run import loader_of, make_dataset, run_config

from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.distributed import agree_on_name
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


def torchrun(unstill: str, *arguments, restarts: int = 0) -> subprocess.CompletedProcess:
    """distributed_scenarios.py in two processes; the time limit is a safety net, no assertion depends on it."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    return subprocess.run(
        [*launch, "--max-restarts", str(restarts), *shlex.split(unstill), *arguments],
        capture_output=True,
        text=True,
        timeout=1200,
        env=environment | {"OMP_NUM_THREADS": "1", "UNSTILL_BEFORE": "from distributed_scenarios import main as run"},
    )


def weights(run: Path) -> dict[str, torch.Tensor]:
    """Final weights of a run."""
    return load_file(pointed(run / "checkpoints") / "model.safetensors")


def one_process(folder: Path, name: str, **changes):
    """The run of ``distributed_scenarios.run`` in this process."""
    config = run_config(
        folder,
        out=folder / name,
        model=ModelConfig(name="synthetic_run:layer_norm_net"),
        step=StepConfig(precision="fp64", compile="off"),
        **changes,
    )
    return train(config, make_loader=loader_of())


def test_a_group_agrees_on_a_name_whatever_the_dead_have_written():
    store, seen = dist.HashStore(), set()
    for _ in range(2):  # the second group meets all that the first has left
        store.set("question/2", "of a process that died before it had an answer")
        with ThreadPoolExecutor(3) as ranks:
            names = set(ranks.map(lambda rank: agree_on_name(store, rank, 3), (2, 0, 1)))
        assert len(names) == 1 and not names & seen
        seen |= names
    with pytest.raises(TimeoutError, match="ranks 1 of 2 did not come"):
        agree_on_name(dist.HashStore(), 0, 2, timedelta(seconds=0.1))


@pytest.mark.slow
def test_two_processes_compute_what_one_does(tmp_path, unstill):
    """Averaged gradients, skipped steps, and a compiled run that is stopped and resumed."""
    make_dataset(tmp_path / "data")
    done = torchrun(unstill, "exact", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads((tmp_path / "exact.json").read_text())
    assert len(report) == 15
    assert {case: error for case, error in report.items() if error > 1e-10} == {}
    records = [json.loads(line) for line in (tmp_path / "nan" / "metrics.jsonl").read_text().splitlines()]
    assert [record["skipped"] for record in records] == [0, 0, 1, 1, 1]  # rank 0 skips what only rank 1 saw was bad
    assert all(value.isfinite().all() for value in weights(tmp_path / "nan").values())

    from distributed_scenarios import compiled_config  # inductor: a second of every process that reads this file

    eager = {"compile": "off", "accumulate": 1, "static_parts": 1}
    train(compiled_config(tmp_path, "eager", step=eager), make_loader=loader_of())
    final = [pointed(tmp_path / run / "checkpoints") for run in ("eager", "compiled")]
    for file in ("model.safetensors", "ema.safetensors"):
        expected, found = (load_file(path / file) for path in final)
        for name, value in expected.items():
            torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_one_then_two_then_one_process_is_the_same_run_though_one_dies(tmp_path, unstill):
    make_dataset(tmp_path / "data")
    one_process(tmp_path, "whole")
    with pytest.raises(Preempted):
        one_process(tmp_path, "elastic", stop_after=2)
    # rank 1 kills itself in step 5: the other must end, too, and torchrun start both again from the last checkpoint
    done = torchrun(unstill, "train", tmp_path, "elastic", "die", restarts=1)
    assert done.returncode == 0, done.stderr[-3000:]
    orders = [json.loads((tmp_path / f"elastic.{rank}.json").read_text()) for rank in (0, 1)]
    assert [step for step, _ in orders[0]] == list(range(3, 10))
    assert [a + b for (_, a), (_, b) in zip(*orders, strict=True)] == [
        list(range(4 * s, 4 * s + 4)) for s in range(3, 10)
    ]
    (tmp_path / "elastic" / "checkpoints" / "latest").write_text("step-00000006\n")  # from here on one process again
    one_process(tmp_path, "elastic")
    for name, value in weights(tmp_path / "whole").items():
        torch.testing.assert_close(weights(tmp_path / "elastic")[name], value, rtol=1e-10, atol=1e-12)
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("whole", "elastic")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-10)
