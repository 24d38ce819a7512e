"""What two processes do; started by test_distributed.py through torchrun.

torchrun --nproc-per-node 2 distributed_scenarios.py exact FOLDER      against one process, in float64; see main
torchrun --nproc-per-node 2 distributed_scenarios.py train FOLDER RUN [die]
"""

import contextlib
import copy
import json
import os
import signal
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import synthetic_run
import torch
import torch.distributed as dist
from torch._dynamo.backends.debugging import aot_eager

from unstill.trainer import compile_cache
from unstill.trainer.batch import Batch
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.config import TrainConfig
from unstill.trainer.distributed import Ranks, process_group, wrap
from unstill.trainer.loss_module import LossModule, allow_inner_gradients
from unstill.trainer.methods import Albar, Baseline, Sdn
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.passes import backward_in_passes, static_leaf, step_passes
from unstill.trainer.step_config import StepConfig
from unstill.trainer.train import train

ALBAR = Albar(gp_norm="per_sample", w_gp=0.5)
BATCH_NORM, LAYER_NORM = "batch_norm_net", "layer_norm_net"


@dataclass(frozen=True)
class Case:
    """One way to compute the averaged gradient."""

    mode: str
    net: str
    method: Albar | Baseline = ALBAR
    accumulate: int = 1
    static_parts: int = 1
    second_share: float = 0.0


CASES = {
    **{f"eager {net} two": Case("eager", net) for net in (BATCH_NORM, LAYER_NORM)},
    **{f"eager {net} joint": Case("eager", net, replace(ALBAR, forward="joint")) for net in (BATCH_NORM, LAYER_NORM)},
    # compiling takes seconds a case: layer norm in two passes, and static parts, are in the buckets and the run below
    f"compiled {BATCH_NORM} two": Case("compiled", BATCH_NORM),
    f"compiled {LAYER_NORM} joint": Case("compiled", LAYER_NORM, replace(ALBAR, forward="joint")),
    **{f"accumulated {net}": Case("eager", net, accumulate=2) for net in (BATCH_NORM, LAYER_NORM)},
    "static parts": Case("eager", LAYER_NORM, static_parts=2),
    "accumulated static parts": Case("eager", LAYER_NORM, accumulate=2, static_parts=2),
    "two views": Case("eager", LAYER_NORM, static_parts=2, second_share=0.3),
    "two views of another method": Case("eager", LAYER_NORM, Baseline(), accumulate=2, second_share=0.3),
    # its scene classifier has no part in the last backward
    "on another method": Case("eager", LAYER_NORM, replace(ALBAR, base=Sdn(hidden=8, layers=0)), static_parts=2),
    "compiled on another method": Case("compiled", LAYER_NORM, replace(ALBAR, base=Sdn(hidden=8, layers=0))),
    # four gradient buckets, where dynamo would split the graph
    "compiled buckets": Case("compiled", "many_buckets_net", accumulate=2, static_parts=2),
}


def exact(folder: Path) -> None:
    """Averaged gradients of every case against the mean of the ranks' own, computed in one process."""
    report = {}
    with process_group("cpu") as ranks:
        for name, case in CASES.items():
            worst = difference(case, ranks)
            dist.all_reduce(worst, dist.ReduceOp.MAX)
            report[name] = float(worst)
        if ranks.first:
            (folder / "exact.json").write_text(json.dumps(report))


def difference(case: Case, ranks: Ranks) -> torch.Tensor:
    """Largest difference of a case's gradients on this rank, relative to the largest gradient."""
    torch.manual_seed(0)
    model, method = getattr(synthetic_run, case.net)(4).double(), case.method
    scenes = torch.eye(3, dtype=torch.float64)[torch.arange(8) % 3]
    own = method.module(model, "head", {"scene": scenes})
    loss = LossModule(model, method, head="head", method_module=None if own is None else own.double())
    expected = copy.deepcopy(loss)
    g = torch.Generator().manual_seed(1)
    motion = torch.randn(8, 3, 4, 8, 8, generator=g, dtype=torch.float64)
    clips = Batch(motion, motion[:, :, 2:3], torch.arange(8) % 4, None, {"scene": scenes})
    if case.second_share:
        clips = clips.with_second_view(motion.flip(3), case.second_share)
    views = [(clips.second_share, "second_view"), (1 - clips.second_share, "motion")]
    size = 4 // case.accumulate
    parts = [clips.select(slice(first, first + size)) for first in range(0, 8, size)]
    for part in parts:  # one process, one backward a part
        for share, view in views:
            if share:
                penalise = method.twice_differentiable
                value, _ = expected(
                    getattr(part, view), static_leaf(part, penalise), part.target, penalise, part.per_sample
                )
                (share * value / len(parts)).backward()
    if case.mode == "compiled":
        torch._dynamo.reset()
        allow_inner_gradients()
        loss.compile(fullgraph=True, dynamic=False, backend="aot_eager")
    wrapped = wrap(loss, ranks, all_in_last_pass=own is None)
    mine = parts[ranks.rank * case.accumulate : (ranks.rank + 1) * case.accumulate]
    for _ in range(2):  # a second step finds the wrapper as the first has left it
        loss.zero_grad()
        for part in mine:
            passes = step_passes(
                *(method, size, method.twice_differentiable),
                static_parts=case.static_parts,
                last=part is mine[-1],
                second_share=case.second_share,
            )
            parameters = list(loss.parameters())
            backward_in_passes(wrapped, part, passes, scale=1 / case.accumulate, parameters=parameters)
    scale = max(p.grad.abs().max() for p in expected.parameters())
    pairs = zip(loss.parameters(), expected.parameters(), strict=True)
    return torch.stack([(p.grad - q.grad).abs().max() / scale for p, q in pairs]).max()


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


def compiled_config(folder: Path, name: str, **changes) -> TrainConfig:
    """5 steps in which everything is summed up in parts."""
    step = {"precision": "fp64", "ema": 0.9, "accumulate": 2, "static_parts": 2}
    return synthetic_run.run_config(
        folder,
        out=folder / name,
        model=ModelConfig(name="synthetic_run:layer_norm_net"),
        step=StepConfig(**step | changes.pop("step", {})),
        batch_size=8,
        **changes,
    )


def compiled(folder: Path, name: str) -> None:
    """Train compiled, stopped and resumed after step 2. In place of inductor, whose C++ takes minutes, its front."""
    compile_cache.compile_fx = lambda graph, inputs, **_: aot_eager(graph, inputs)
    for stop_after in (2, None):
        with contextlib.suppress(Preempted):
            train(compiled_config(folder, name, stop_after=stop_after), make_loader=synthetic_run.loader_of())


def main(arguments: list[str]) -> int:
    """exact: a run "nan", the gradients of every case, a run "compiled"."""
    scenario, folder, *rest = arguments
    torch.set_num_threads(1)
    if scenario == "exact":
        run(Path(folder), "nan", "nan")
        exact(Path(folder))
        torch._dynamo.reset()
        compiled(Path(folder), "compiled")
    else:
        run(Path(folder), rest[0], rest[1] if len(rest) > 1 else None)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
