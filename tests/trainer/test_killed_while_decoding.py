"""A training process that dies of SIGSEGV in a decoder names its clips, and is resumed without them."""

import csv
import subprocess
import sys

import pytest

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig

# sample 5 kills the process that decodes it
PROGRAM = """
import signal, sys
from unstill.pipeline.loading.in_flight import InFlight
begin = InFlight.begin
def dies(record, sample):
    slot = begin(record, sample)
    if sample == 5:
        signal.raise_signal(signal.SIGSEGV)
    return slot
InFlight.begin = dies
from unstill.trainer.cli.main import run
sys.exit(run(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_run_killed_by_a_clip_is_resumed_without_it(tmp_path):
    videos = MotionsConfig(out=tmp_path / "videos", train=8, splits=("train",), workers=1)
    write_motions(videos)
    data, out = tmp_path / "data", tmp_path / "run"
    convert(ConvertConfig(source=videos.out / "train", out=data, codec="vp9", short_side=videos.size, workers=1))
    options = ["--data", str(data), "--out", str(out), "--batch-size", "4", "--epochs", "2", "--device", "cpu"]
    options += ["--loader.decoder", "cores", "--loader.core-threads", "1"]

    def train(*more: str) -> tuple[int, str]:
        command = [sys.executable, "-c", PROGRAM, "train", "demo_baseline", *options, *more]
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        return done.returncode, done.stdout + done.stderr

    assert train()[0] == -11
    code, said = train()
    listed = out / "clips_in_flight.txt"
    keys = listed.read_text().split()
    assert code == -11 and len(keys) == 1
    assert f"while 1 clips were being decoded: {keys[0]}" in said and f"--loader.leave-out {listed}" in said
    code, said = train("--loader.leave-out", str(listed))
    assert code == 0, said[-2000:]
    with open(out / "bad_clips.csv") as file:
        assert {(row["key"], row["reason"]) for row in csv.DictReader(file)} == {
            (keys[0], "left out by --loader.leave-out")
        }
    assert not list(out.glob("decoding-rank*"))
