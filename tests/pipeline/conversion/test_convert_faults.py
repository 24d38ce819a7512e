"""What a conversion survives: being killed at any write, a second run meanwhile, a full disk, sources that change."""

import csv
import hashlib
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from unstill.pipeline.conversion.convert import convert
from unstill.pipeline.conversion.plan import read_header, read_plan
from unstill.pipeline.conversion.verify import verify
from unstill.pipeline.errors import InputError

# Runs a conversion that kills itself (SIGKILL) at its n-th write, fsync or rename; n = 0 never does.
KILLED = """
import os, resource, signal, sys
from unstill.pipeline.atomic_files import AtomicFile
from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError

source, out, left, largest_file = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
events = 0

def counted(function):
    def call(*arguments):
        global events
        events += 1
        if events == left:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments)
    return call

os.replace, os.fsync, AtomicFile.write = counted(os.replace), counted(os.fsync), counted(AtomicFile.write)
if largest_file:
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
try:
    convert(ConvertConfig(source=source, out=out, codec="vp9", short_side=32, gop=4, samples_per_shard=3, workers=2))
except InputError as error:
    sys.exit(str(error))
print(events)
"""


def start(source: Path, out: Path, kill_at: int = 0, largest_file: int = 0) -> subprocess.Popen:
    arguments = [str(source), str(out), str(kill_at), str(largest_file)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, "-c", KILLED, *arguments], **pipes)


def contents(out: Path) -> dict[str, str]:
    """Hash of every file; also proves that nothing half written is left."""
    paths = sorted(path for path in out.rglob("*") if path.is_file())
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
def test_killed_ten_times_at_random_moments(class_folders, converted, tmp_path):
    out = tmp_path / "out"
    pick = random.Random(3)
    killed = 0
    while killed < 10:
        process = start(class_folders, out, kill_at=pick.randint(1, 60))
        process.communicate()
        if process.returncode == 0:  # it was nearly done: begin again
            shutil.rmtree(out)
            continue
        assert process.returncode == -9
        killed += 1
    process = start(class_folders, out)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    assert contents(out) == contents(converted)


@pytest.mark.slow
def test_killed_at_each_step_of_the_end(class_folders, converted, tmp_path):
    """The last writes are those of the merge; whatever stands then must be taken up correctly."""
    out = tmp_path / "out"
    process = start(class_folders, out)
    events = int(process.communicate()[0])
    for before_the_end in (2, 5, 8):
        shutil.rmtree(out)
        process = start(class_folders, out, kill_at=events - before_the_end)
        process.communicate()
        assert process.returncode == -9
        convert_again = start(class_folders, out)
        convert_again.communicate()
        assert contents(out) == contents(converted)


@pytest.mark.slow
def test_two_runs_on_one_output(class_folders, converted, tmp_path):
    processes = [start(class_folders, tmp_path / "out") for _ in range(2)]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors
    assert contents(tmp_path / "out") == contents(converted)


@pytest.mark.slow
def test_full_disk(class_folders, converted, tmp_path):
    out = tmp_path / "out"
    process = start(class_folders, out, largest_file=9000)
    _, errors = process.communicate()
    last = errors.strip().splitlines()[-1]
    assert process.returncode == 1 and "no space left" in last and ".tar" in last
    assert list((out / "shards").iterdir()) == []
    start(class_folders, out).communicate()
    assert contents(out) == contents(converted)


def test_sources_that_change_or_vanish_after_the_plan(class_folders, convert_config, tmp_path, video):
    source, out = Path(shutil.copytree(class_folders, tmp_path / "source")), tmp_path / "out"
    assert not convert(convert_config(source, out, shards="0:0")).complete  # plans, converts nothing
    (source / "skip" / "000.mp4").unlink()
    (source / "skip" / "002.mp4").write_bytes(video(frames=7, height=48, width=64, seed=9).mp4)
    same_size = bytearray((source / "skip" / "004.mp4").read_bytes())
    same_size[-5] ^= 1
    (source / "skip" / "004.mp4").write_bytes(same_size)
    report = convert(convert_config(source, out))
    assert report.reasons == {"changed": 2, "missing": 1, "unreadable": 1}
    assert report.planned == 8 == report.converted + report.quarantined
    with open(out / "quarantine.csv", newline="") as file:
        assert [row["path"] for row in csv.DictReader(file)] == [
            "hop/page.mp4", "skip/000.mp4", "skip/002.mp4", "skip/004.mp4",
        ]  # fmt: skip
    assert verify(out, workers=2) == []
    before = contents(out)
    assert convert(convert_config(source, out)).converted == 4
    assert contents(out) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_that_may_not_be_written(class_folders, convert_config, tmp_path):
    from unstill.pipeline.errors import InputError

    (tmp_path / "locked").mkdir(mode=0o500)
    with pytest.raises(InputError, match="not allowed"):
        convert(convert_config(class_folders, tmp_path / "locked" / "out"))


def test_a_plan_that_is_a_pipe_or_a_device_is_refused(tmp_path):
    """Others may write to an output folder; reading a pipe would never begin, reading a device never end."""
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        for read in (read_header, read_plan):
            with pytest.raises(InputError, match="not a plain file"):
                read(path)
