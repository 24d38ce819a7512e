"""What two processes do; started by test_distributed.py through torchrun.

torchrun --nproc-per-node 2 distributed_scenarios.py exact FOLDER      gradients against one process, in float64
torchrun --nproc-per-node 2 distributed_scenarios.py train FOLDER RUN [die | nan]
"""

import copy
import itertools
import json
import os
import signal
import sys
from pathlib import Path

import synthetic_run
import torch
import torch.distributed as dist

from unstill.trainer.distributed import process_group, wrap
from unstill.trainer.loss_module import LossModule, static_leaf
from unstill.trainer.methods import Albar
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train


def exact(folder: Path) -> None:
    """Averaged gradients of every combination against the mean of the ranks' own, computed in one process."""
    report = {}
    with process_group("cpu") as ranks:
        nets = ("batch_norm_net", "layer_norm_net")
        cases = list(itertools.product(("eager", "compiled"), nets, ("two", "joint"), (1,)))
        cases += [("eager", net, "two", 2) for net in nets]  # two accumulated parts a rank
        for mode, net, forward, parts in cases:
            torch.manual_seed(0)
            model = getattr(synthetic_run, net)(4).double()
            method = Albar(gp_norm="per_sample", w_gp=0.5, forward=forward)
            g = torch.Generator().manual_seed(1)
            motion = torch.randn(8, 3, 4, 8, 8, generator=g, dtype=torch.float64)
            target = torch.arange(8) % 4

            def backward(loss_module, rows, scale, motion=motion, target=target):
                still = motion[rows, :, 2:3].expand_as(motion[rows]).contiguous()
                (loss_module(motion[rows], static_leaf(still, True), target[rows], True)[0] * scale).backward()

            expected = copy.deepcopy(model)
            chunks = [range(first, first + 4 // parts) for first in range(0, 8, 4 // parts)]
            for rows in chunks:
                backward(LossModule(expected, method), list(rows), 1 / len(chunks))
            loss = LossModule(model, method)
            if mode == "compiled":
                torch._dynamo.reset()
                torch._dynamo.config.trace_autograd_ops = True
                loss.compile(fullgraph=True, dynamic=False, backend="aot_eager")
            wrapped = wrap(loss, ranks)
            mine = chunks[ranks.rank * parts : (ranks.rank + 1) * parts]
            for rows in mine[:-1]:
                with wrapped.no_sync():
                    backward(wrapped, list(rows), 1 / parts)
            backward(wrapped, list(mine[-1]), 1 / parts)
            scale = max(p.grad.abs().max() for p in expected.parameters())
            worst = max(
                (p.grad - q.grad).abs().max() / scale
                for p, q in zip(model.parameters(), expected.parameters(), strict=True)
            )
            dist.all_reduce(worst, dist.ReduceOp.MAX)
            report[f"{mode} {net} {forward} {parts}"] = float(worst)
        if ranks.first:
            (folder / "exact.json").write_text(json.dumps(report))


def run(folder: Path, name: str, fault: str | None) -> None:
    """Train in float64; "die" kills rank 1 in step 5 of the first attempt, "nan" spoils rank 1's step 5."""
    rank = int(os.environ["RANK"])
    seen = []

    def change(step, clips):
        if step == 5 and rank == 1 and fault == "die" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        if step == 5 and rank == 1 and fault == "nan":
            clips.label[0] = 99

    config = synthetic_run.run_config(
        folder,
        out=folder / name,
        model=ModelConfig(name="synthetic_run:layer_norm_net"),
        step=StepConfig(precision="fp64", compile="off"),
    )
    try:
        train(config, make_loader=synthetic_run.loader_of(seen, change))
    finally:
        (folder / f"{name}.{rank}.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    torch.set_num_threads(1)
    scenario, folder, *rest = sys.argv[1:]
    if scenario == "exact":
        run(Path(folder), "nan", "nan")
        exact(Path(folder))
    else:
        run(Path(folder), rest[0], rest[1] if len(rest) > 1 else None)
