"""The stages of ``gpu_suite.sh``: what each runs, for how long at most, and what is written when something is killed.

GPU time often comes in slots of ten minutes. Each stage is one command that ends within nine, and each part of it one
process with a limit of its own; what a part measured before it failed or was stopped stays in its result file. Caches
of compiled code and the synthetic videos are in a folder that the next stage finds again.
"""

import argparse
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import typing
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from . import suites

STAGE_SECONDS = 530  # of ten minutes, with a margin for what starts and ends a slot
SLACK = 1.15  # of a part's planned seconds, before it is stopped
ENTRY = "import sys; sys.argv[0] = 'unstill'; from unstill.trainer.cli.main import main; main()"


@dataclass(frozen=True)
class Part:
    """One process of a stage.

    Attributes:
        name: what it is called.
        arguments: of ``unstill bench``, or of pytest where ``seconds`` is given. ``{kept}`` is the kept folder,
            ``{left}`` the seconds that the stage has left when the part starts.
        seconds: planned, of a part that is no benchmark; a benchmark computes its own.
        least: seconds that ``{left}`` is planned as.
    """

    name: str
    arguments: tuple[str, ...]
    seconds: float | None = None
    least: float = 0.0

    @property
    def planned(self) -> float:
        """Seconds that a machine of the H100's class should need at most; parses the options on the way."""
        if self.seconds is not None:
            return self.seconds
        name, *rest = self._filled(Path("KEPT"), self.least)
        module = suites.load(name)
        options = typing.get_type_hints(module.run)["config"]
        return module.planned(tyro.cli(options, prog=f"unstill bench {name}", args=rest))

    @property
    def limit(self) -> float:
        """Seconds after which it is stopped; more where it takes what is left."""
        return round(SLACK * self.planned)

    @property
    def takes_what_is_left(self) -> bool:
        """Whether it may use all seconds that the stage has left."""
        return "{left}" in self.arguments

    def command(self, kept: Path, left: float) -> list[str]:
        """What is run."""
        arguments = self._filled(kept, left)
        if self.seconds is not None:  # a line a test: one that is stopped shows how far it came
            options = ["-v", "--tb=short", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=60"]
            return [sys.executable, "-P", "-m", "pytest", *options, *arguments]
        return [sys.executable, "-P", "-c", ENTRY, "bench", *arguments]

    def _filled(self, kept: Path, left: float) -> list[str]:
        return [text.replace("{kept}", str(kept)).replace("{left}", f"{left:.0f}") for text in self.arguments]


_SCRATCH = ("--recipe", "kinetics400_scratch", "--batch-size", "32", "--device", "cuda", "--videos", "{kept}/videos")
_ALBAR = ("--recipe", "hmdb51_albar_bf16", "--device", "cuda", "--videos", "{kept}/videos")

_CPU_ONLY = (
    "--deselect=tests/kernels/test_aot.py",
    "--deselect=tests/kernels/test_mutations.py",
    "--deselect=tests/kernels/test_specialisations.py",
)

STAGES: dict[int, tuple[Part, ...]] = {
    # is everything there, and is it right?
    1: (
        Part("facts", ("facts",)),
        Part("kernels against float64", ("-m", "not gpu", "tests/kernels", *_CPU_ONLY), 60),
        Part("GPU tests of the kernels", ("-m", "gpu", "tests/kernels"), 60),
        Part("GPU tests of the rest", ("-m", "gpu", "tests/pipeline", "tests/trainer"), 230),
    ),
    # what feeds the step
    2: (
        Part(
            "loader",
            ("loader", "--videos", "{kept}/videos", "--codecs", "h264", "hevc", "--count", "32", "--seconds", "1"),
        ),
        Part("kernels", ("kernels", "--no-aot", "--classes", "400", "--milliseconds", "50")),
        Part("attention", ("attention", "--milliseconds", "30")),
        Part("roofline", ("roofline", *_SCRATCH, "--seconds", "1", "--compile", "off")),
    ),
    # the step, and training end to end: first the run that SPDL published a number of
    3: (
        Part("train r3d_18", ("train", *_SCRATCH, "--rounds", "1", "--steps", "8")),
        Part("train swin3d_t", ("train", *_ALBAR, "--no-baseline", "--rounds", "1", "--windows", "1", "--steps", "4")),
        Part("step", ("step", "--steps", "5", "--seconds", "{left}"), least=85),
    ),
}


def main() -> int:
    """Run the stages that are named, or print the plan of all; returns the number of parts that failed."""
    parser = argparse.ArgumentParser(prog="gpu_suite.sh", description="What only a GPU can tell, in three stages.")
    parser.add_argument("stage", nargs="*", type=int, help="1, 2 or 3; by default all")
    parser.add_argument("--dry-run", action="store_true", help="print the plan and its seconds; needs no GPU")
    parser.add_argument("--kept", type=Path, default=Path("runs/gpu_suite"), help="videos and caches of compiled code")
    given = parser.parse_args()
    stages = given.stage or list(STAGES)
    if unknown := [stage for stage in stages if stage not in STAGES]:
        parser.error(f"stage {unknown[0]}: expected 1, 2 or 3")
    if given.dry_run:
        print("\n".join(plan(stages)))
        return 0
    out = Path(os.environ.get("OUT") or "bench/results")
    out.mkdir(parents=True, exist_ok=True)
    return sum(run_stage(STAGES[stage], given.kept.absolute(), out, f"stage {stage}") for stage in stages)


def plan(stages: Iterable[int]) -> list[str]:
    """The parts of each stage with planned seconds, limits and commands, as lines."""
    lines = []
    for stage in stages:
        parts = STAGES[stage]
        total, limit = sum(part.planned for part in parts), sum(part.limit for part in parts)
        lines.append(f"stage {stage}: {total:.0f} s planned, {limit:.0f} s at most, of {STAGE_SECONDS}")
        for part in parts:
            tool = "unstill bench" if part.seconds is None else "pytest"
            words = shlex.join(part.arguments).replace("'{kept}/videos'", "KEPT/videos").replace("'{left}'", "LEFT")
            lines.append(f"  {part.name:<26}{part.planned:5.0f} s  at most {part.limit:4.0f} s   {tool} {words}")
    return lines


def run_stage(parts: Sequence[Part], kept: Path, out: Path, title: str) -> int:
    """Run the parts one after another, each within its limit; returns how many failed.

    Args:
        parts: of the stage.
        kept: folder of the videos and the caches of compiled code; made if need be.
        out: folder of the result files, and of gpu_suite.log.
        title: of the stage.
    """
    environment = dict(os.environ) | _caches(kept) | {"OUT": str(out.absolute()), "UNSTILL_REQUIRE_GPU": "1"}
    begin, lines, failed = time.monotonic(), [], 0
    with open(out / "gpu_suite.log", "a") as log:
        tell = _teller(log)
        for part in parts:
            left = STAGE_SECONDS - (time.monotonic() - begin)
            limit = left if part.takes_what_is_left else min(part.limit, left)
            tell(f"\n=== {title}: {part.name} (at most {limit:.0f} s)")
            started = time.monotonic()
            ended = "left out: no time left"
            if left > 10:
                ended = run_within(part.command(kept, left - 10), limit, environment, tell)
            failed += ended != "passed"
            lines.append(f"  {part.name:<26}{time.monotonic() - started:5.0f} s  {ended}")
        tell(f"\n{title}, results in {out}:\n" + "\n".join(lines))
    return failed


def run_within(command: Sequence[str], seconds: float, environment: dict[str, str], tell: Callable[[str], None]) -> str:
    """Run a command, and all that it starts, for so long at most; what it prints goes to ``tell``.

    Returns:
        How it ended: passed, failed, or stopped.
    """
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    assert process.stdout is not None
    stopped = False

    def stop() -> None:
        nonlocal stopped
        stopped = True
        os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, stop)
    timer.start()
    try:
        assert process.stdout is not None, "it is started with a pipe"
        for line in process.stdout:
            tell(line.rstrip("\n"))
        code = process.wait()
    finally:
        timer.cancel()
    if stopped:
        return f"stopped at its limit of {seconds:.0f} s"
    return "passed" if code == 0 else f"failed ({code})"


def _caches(kept: Path) -> dict[str, str]:
    """Where inductor and Triton keep compiled code."""
    return {"TORCHINDUCTOR_CACHE_DIR": str(kept / "inductor"), "TRITON_CACHE_DIR": str(kept / "triton")}


def _teller(log: typing.TextIO) -> Callable[[str], None]:
    def tell(line: str) -> None:
        print(line, flush=True)
        log.write(line + "\n")
        log.flush()

    return tell


if __name__ == "__main__":
    sys.exit(main())
