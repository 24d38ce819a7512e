"""A decoder that crashes, hangs or explodes costs one video and nothing else."""

import dataclasses
import fcntl
import os
import signal
import termios
import threading
import time
from dataclasses import asdict
from pathlib import Path

import av
import pytest

from unstill.pipeline.conversion.content_hash import block_digest
from unstill.pipeline.conversion.convert import ConvertConfig
from unstill.pipeline.conversion.sandbox.pool import Pool, Worker
from unstill.pipeline.sandbox.child import FRAME
from unstill.pipeline.sandbox.process import Limits

RECIPE = asdict(ConvertConfig(source="", out="", codec="vp9", short_side=32, gop=4).recipe())
WHOLE = {"offset": 0, "start": None, "end": None}
ROOMY = Limits(seconds=600.0, memory_bytes=320 << 20)


def task(path: Path) -> dict:
    size = path.stat().st_size
    with open(path, "rb") as file:
        facts = {"bytes": size, "content": block_digest(file, 0, size), "modified": None}
    return {"path": str(path), **facts, **WHOLE, "recipe": RECIPE}


@pytest.fixture
def good(tmp_path, video) -> Path:
    path = tmp_path / "good.mp4"
    path.write_bytes(video(frames=5, height=32, width=32).mp4)
    return path


@pytest.mark.slow
def test_a_hang_is_charged_to_its_video_and_the_next_one_works(good):
    worker = Worker(ROOMY)
    try:
        assert worker.run(task(good))[0]["frames"] == 5
        worker.limits = dataclasses.replace(ROOMY, seconds=0.5)
        os.kill(worker.pid, signal.SIGSTOP)
        header, _ = worker.run(task(good))
        assert header["bad"] == "timeout"
        worker.limits = ROOMY
        assert worker.run(task(good))[0]["frames"] == 5
    finally:
        worker.close(kill=True)


def test_a_crash_is_charged_to_its_video_and_the_next_one_works(good):
    worker = Worker(ROOMY)
    try:
        assert worker.run(task(good))[0]["frames"] == 5
        first = worker.pid
        os.kill(first, signal.SIGSTOP)
        requests = worker._child.requests

        def die():  # during the next video: when it is asked for
            while not int.from_bytes(fcntl.ioctl(requests, termios.TIOCOUTQ, bytes(4)), "little"):
                time.sleep(0.01)
            os.kill(first, signal.SIGSEGV)
            os.kill(first, signal.SIGCONT)

        threading.Thread(target=die).start()
        header, _ = worker.run(task(good))
        assert header["bad"] == "crashed" and "SIGSEGV" in header["detail"]
        assert worker.run(task(good))[0]["frames"] == 5
        assert worker.pid != first
    finally:
        worker.close(kill=True)


def test_pipes_devices_and_folders_are_refused_at_once(good, tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    worker = Worker(ROOMY)
    try:
        for path in (tmp_path / "pipe.mp4", Path("/dev/zero"), tmp_path):
            header, _ = worker.run(task(good) | {"path": str(path)})
            assert header == {"bad": "changed", "detail": "not a plain file"}
        assert worker.run(task(good) | {"path": str(tmp_path / "none.mp4")})[0]["bad"] == "missing"
    finally:
        worker.close(kill=True)


@pytest.mark.slow
def test_an_answer_that_no_honest_worker_gives_is_a_crash(good):
    """What a decoder that was taken over may send: not an object, too deep, a reason that there is not."""
    for header in (b"[1]", b"[" * 20_000, b'{"bad": "\\u001b[2J"}', b'{"bad": ["x"]}', b"\xff"):
        worker = Worker(ROOMY)
        try:
            worker.run(task(good))
            answers, theirs = os.pipe()
            os.write(theirs, FRAME.pack(len(header), 0) + header)
            worker._child = dataclasses.replace(worker._child, answers=answers)
            assert worker.run(task(good))[0]["bad"] == "crashed"
        finally:
            worker.close(kill=True)


def test_a_fault_of_the_program_is_told_in_its_words(good):
    """Such as an argument that another release of PyAV does not know."""
    worker = Worker(ROOMY)
    try:
        header, _ = worker.run(task(good) | {"recipe": {"nosuch": 1}})
        assert header["bad"] == "crashed" and "TypeError" in header["detail"] and "nosuch" in header["detail"]
        assert worker.run(task(good))[0]["frames"] == 5
    finally:
        worker.close(kill=True)


def test_memory_beyond_the_limit_is_charged_to_its_video(tmp_path, good):
    large = tmp_path / "large.mp4"
    with av.open(str(large), "w") as container:
        stream = container.add_stream("libx264", rate=30, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 2560, 1440, "yuv420p"
        for number in range(4):
            frame = av.VideoFrame(2560, 1440, "yuv420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with Pool(1, Limits(seconds=600.0, memory_bytes=24 << 20)) as pool:
        answers = [header for _, header, _ in pool.map([(0, task(good)), (1, task(large)), (2, task(good))])]
    assert answers[1]["bad"] == "memory"
    assert answers[0]["frames"] == answers[2]["frames"] == 5


def test_answers_come_in_order_and_stay_bounded(good):
    asked = []

    def tasks():
        for number in range(40):
            asked.append(number)
            yield number, task(good) if number % 3 else None

    with Pool(2, ROOMY) as pool:
        for position, (number, header, _) in enumerate(pool.map(tasks())):
            assert position == number and ("frames" in header) == bool(number % 3)
            assert len(asked) - position <= 2 * 4 + 1


def test_a_worker_can_write_no_file_and_leaves_nothing(good):
    worker = Worker(ROOMY)
    try:
        worker.run(task(good))
        interfaces = Path(f"/proc/{worker.pid}/net/dev").read_text().splitlines()[2:]
        if os.geteuid() == 0:  # otherwise the system may forbid it
            assert [line.split(":")[0].strip() for line in interfaces] == ["lo"]
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        assert [line.split()[3] for line in limits.splitlines() if line.startswith("Max file size")] == ["0"]
        pid = worker.pid
    finally:
        worker.close()
    assert not Path(f"/proc/{pid}").exists()
