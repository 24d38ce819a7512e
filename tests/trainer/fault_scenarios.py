"""Kills runs and lets them go on; started by test_resume.py as a process of its own, since SIGKILL spares nobody.

    python fault_scenarios.py FOLDER SEED...

For every seed: runs in forked children, killed with SIGKILL at random steps and resumed until done. Prints a digest
of all that must be equal to an uninterrupted run, one line a seed.
"""

import hashlib
import json
import os
import random
import signal
import sys
from pathlib import Path

import synthetic_run
import torch

from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.train import train

TIMED = ("clips_per_s", "data_wait")


def digest(run: Path) -> str:
    """Weights, their average, optimiser and counters of the final checkpoint, and the metrics without the timings."""
    final = pointed(run / "checkpoints")
    rest = torch.load(final / "state.pt", weights_only=True)
    state = hashlib.sha256()
    for value in _leaves(rest):
        state.update(value.numpy().tobytes() if isinstance(value, torch.Tensor) else repr(value).encode())
    for name in ("model.safetensors", "ema.safetensors"):
        state.update((final / name).read_bytes())
    for line in (run / "metrics.jsonl").read_text().splitlines():
        record = json.loads(line)
        state.update(repr({name: value for name, value in record.items() if name not in TIMED}).encode())
    return f"{final.name} {state.hexdigest()}"


def run_child(folder: Path, name: str, kill_at: int | None, background: bool = True) -> int:
    """Train in a forked child; returns its wait status."""
    child = os.fork()
    if child == 0:
        try:
            settings = {"every": 3, "background": background}
            config = synthetic_run.run_config(
                folder, out=folder / name, checkpoint=synthetic_run.CheckpointConfig(**settings)
            )

            def change(step, clips):
                if step == kill_at:
                    os.kill(os.getpid(), signal.SIGKILL)

            train(config, make_loader=synthetic_run.loader_of(change=change))
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return os.waitpid(child, 0)[1]


def main(folder: Path, seeds: list[int]) -> None:
    torch.set_num_threads(1)  # no thread pool: forking one would hang
    synthetic_run.make_dataset(folder / "data")
    # in this process: what a first step sets up is there in every fork
    train(synthetic_run.run_config(folder, out=folder / "whole"), make_loader=synthetic_run.loader_of())
    print(digest(folder / "whole"))
    for seed in seeds:
        draw = random.Random(seed)
        steps = sorted(draw.sample(range(10), draw.randint(1, 3)))  # one to three kills, step 0 and the last among them
        for step in steps:
            status = run_child(folder, f"run{seed}", step, background=draw.random() < 0.5)
            assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status
        assert run_child(folder, f"run{seed}", None) == 0
        print(digest(folder / f"run{seed}"))


def _leaves(value):
    if isinstance(value, dict):
        for key in sorted(value, key=str):
            yield key
            yield from _leaves(value[key])
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _leaves(entry)
    else:
        yield value


if __name__ == "__main__":
    main(Path(sys.argv[1]), [int(seed) for seed in sys.argv[2:]])
