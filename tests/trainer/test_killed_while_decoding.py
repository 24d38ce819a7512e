"""A training process that dies of SIGSEGV in a decoder names its clips, and is resumed without them."""

import csv
import subprocess
import sys

import pytest

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig

# sample 5 kills the process that decodes it; forks, so that the program is imported once for both runs
PROGRAM = """
import os, signal, sys
from unstill.pipeline.loading.in_flight import InFlight
from unstill.trainer import train
from unstill.trainer.cli.main import run
begin = InFlight.begin
def dies(record, sample):
    slot = begin(record, sample)
    if sample == 5:
        signal.raise_signal(signal.SIGSEGV)
    return slot
InFlight.begin = dies
for _ in range(2):
    if os.fork() == 0:
        sys.exit(run(sys.argv[1:]))
    print("ended:", os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_run_killed_by_a_clip_is_resumed_without_it(tmp_path):
    videos = MotionsConfig(out=tmp_path / "videos", train=8, splits=("train",), workers=1)
    write_motions(videos)
    data, out = tmp_path / "data", tmp_path / "run"
    convert(ConvertConfig(source=videos.out / "train", out=data, codec="vp9", short_side=videos.size, workers=1))
    options = ["--data", str(data), "--out", str(out), "--batch-size", "4", "--epochs", "2", "--device", "cpu"]
    options += ["--loader.decoder", "cores", "--loader.core-threads", "1"]

    command = ["train", "demo_baseline", *options]
    killed = subprocess.run([sys.executable, "-c", PROGRAM, *command], capture_output=True, text=True, timeout=1200)
    assert killed.stdout.splitlines().count("ended: -11") == 2, killed.stdout + killed.stderr[-2000:]
    listed = out / "clips_in_flight.txt"
    keys = listed.read_text().split()
    assert len(keys) == 1
    # the second run says it of the first
    assert f"while 1 clips were being decoded: {keys[0]}" in killed.stderr
    assert f"--loader.leave-out {listed}" in killed.stderr
    assert run([*command, "--loader.leave-out", str(listed)]) == 0
    with open(out / "bad_clips.csv") as file:
        assert {(row["key"], row["reason"]) for row in csv.DictReader(file)} == {
            (keys[0], "left out by --loader.leave-out")
        }
    assert not list(out.glob("decoding-rank*"))
