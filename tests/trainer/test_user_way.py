"""What a user does with real files, processes, signals and a terminal: nothing is lost, outputs say what they are of.

audit -> convert -> train with a validation set -> Ctrl-C -> continue -> evaluate the best -> export -> predict
"""

import csv
import json
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unstill import __version__
from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.shards.dataset_info import DatasetInfo
from unstill.trainer.checkpoints.files import pointed
from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig
from unstill.trainer.validation import read_scores

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

UNSTILL = [sys.executable, "-c", "from unstill.trainer.cli.main import main; main()"]
# after the first score it goes on only when Ctrl-C is pressed
WAITS_FOR_CTRL_C = """
import time
from unstill.trainer.validation import Scoring
score = Scoring.__call__
def score_and_wait(scoring, *arguments):
    score(scoring, *arguments)
    while True:
        time.sleep(0.1)
Scoring.__call__ = score_and_wait
from unstill.trainer.cli.main import main
main()
"""
# between commands that the same processes run one after another there is the word `then`
THEN = """
import itertools
from unstill.trainer.cli.main import run as run_one
def run(words):
    groups = itertools.groupby(words, "then".__eq__)
    return next((code for then, command in groups if not then and (code := run_one(list(command)))), 0)
"""
SAFETY_S = 1200  # no assertion depends on it


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Folder with videos/train, videos/iid and their H.264 shards train and val."""
    root = tmp_path_factory.mktemp("user")
    write_motions(MotionsConfig(out=root / "videos", train=24, test=12, splits=("train", "iid"), workers=1))
    convert(ConvertConfig(source=root / "videos" / "train", out=root / "train", short_side=64, workers=1))
    classes = root / "train" / "dataset.json"
    convert(ConvertConfig(source=root / "videos" / "iid", out=root / "val", classes=classes, short_side=64, workers=1))
    return root


def options(data: Path, out: Path, *more: str) -> list[str]:
    """12 steps of cross entropy, a checkpoint every 4."""
    lengths = ["--batch-size", "6", "--epochs", "3", "--checkpoint.every", "4", "--log.every", "2"]
    folders = ["--data", str(data / "train"), "--validation", str(data / "val"), "--out", str(out)]
    return ["train", "demo_baseline", *folders, *lengths, *more]


class Terminal:
    """A command on a terminal of its own, 80 columns wide."""

    def __init__(self, *arguments: str, program: str = UNSTILL[-1]):
        self.shown, self._read = "", 0
        self.process, self._screen = pty.fork()
        if self.process == 0:
            os.environ |= {"COLUMNS": "80", "LINES": "24", "TERM": "xterm", "OMP_NUM_THREADS": "1"}
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # ignored where the tests run in the background
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            os.execv(sys.executable, [sys.executable, "-c", program, *arguments])

    def read_until(self, text: str) -> None:
        """Read the screen until the text is there, after what was read before."""
        deadline = time.monotonic() + SAFETY_S
        while text not in self.shown[self._read :]:
            assert time.monotonic() < deadline, self.shown
            self.read(1)
        self._read = self.shown.index(text, self._read) + len(text)

    def read(self, seconds: float) -> None:
        """Read what is on the screen, or comes within so many seconds; a full screen would hold the command up."""
        if select.select([self._screen], [], [], seconds)[0]:
            self.shown += os.read(self._screen, 1 << 16).decode(errors="replace")

    def press_ctrl_c(self) -> None:
        """As a person does: the terminal sends the signal."""
        os.write(self._screen, b"\x03")

    def hang_up(self) -> None:
        """The terminal goes away, as when a connection breaks."""
        os.close(self._screen)

    def wait(self, *, reading: bool = True) -> int:
        """The exit code."""
        while reading:
            try:
                self.shown += os.read(self._screen, 1 << 16).decode(errors="replace")
            except OSError:  # the other side is closed
                break
        return os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])


def test_from_videos_to_predictions_with_one_ctrl_c_on_the_way(data, tmp_path, capsys, monkeypatch, unstill):
    monkeypatch.setenv("COLUMNS", "200")
    assert run(["audit", str(data / "videos" / "train")]) == 0
    out, metrics = tmp_path / "run", tmp_path / "run" / "metrics.jsonl"
    terminal = Terminal(*options(data, out), program=WAITS_FOR_CTRL_C)
    terminal.read_until("/12 steps")  # on the panel
    while not (metrics.exists() and read_scores(metrics)):  # until the first checkpoint is scored
        terminal.read(0.05)
    terminal.press_ctrl_c()
    assert terminal.wait() == 130, terminal.shown  # 75 where there is something to save
    shown = re.sub(r"\s+", " ", terminal.shown)
    assert "newest checkpoint is that of step 4, nothing is lost; the same command continues from it" in shown
    assert f"{data / 'train'}: 24 videos, 8 classes" in terminal.shown.replace("\r\n", "")
    assert pointed(out / "checkpoints").name == "step-00000004"

    command = [*shlex.split(unstill), *options(data, out)]
    again = subprocess.run(command, capture_output=True, text=True, timeout=SAFETY_S)
    assert again.returncode == 0, again.stderr
    assert "continuing at step 4 of 12" in again.stderr
    assert f"next: unstill evaluate {out / 'best'} --iid {data / 'val'}" in again.stdout
    scores = read_scores(metrics)
    assert scores.keys() == {4, 8, 12}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert pointed(out / "checkpoints", "best").name == f"step-{best:08d}"
    assert json.loads((out / "config.json").read_text())["config"]["device"] in ("cpu", "cuda")

    capsys.readouterr()
    found = tmp_path / "found"
    assert run(["evaluate", str(out / "best"), "--iid", str(data / "val"), "--out", str(found)]) == 0
    texts = {suffix: (found / f"evaluation.{suffix}").read_text() for suffix in ("json", "csv", "html", "tex")}
    texts["terminal"] = capsys.readouterr().out
    digests = [DatasetInfo.read(data / name).digest[:12] for name in ("train", "val")]
    said = [
        str(out),
        f"step {best} (",
        "cross entropy",
        "motion_cnn",
        str(data / "val"),
        *digests,
        "12",
        "12.5 % of 8 classes",
    ]
    said += ["1 x 1, centre", f"unstill {__version__}", re.search(r"\d{4}-\d\d-\d\dT", texts["json"])[0]]
    for name, text in texts.items():
        plain = text.replace("\\%", "%").replace("\\_", "_")
        assert [word for word in said if word not in plain] == [], name
    rows = list(csv.DictReader(texts["csv"].splitlines()))
    assert float(rows[0]["percent"]) == pytest.approx(scores[best], abs=1e-3)  # what training saw is what one measures
    assert rows[0]["samples"] == "12" and rows[0]["model"] == "run"

    assert run(["export", str(out / "best"), "--out", str(tmp_path / "exported"), "--formats"]) == 0
    videos = sorted(map(str, (data / "videos" / "iid").rglob("*.mp4")))[:2]
    for model in (tmp_path / "exported", out / "best", out / f"step-{best}"):
        assert run(["predict", *videos, "--model", str(model)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.startswith(videos[0])] == [lines[-2]] * 3
    both = [str(out / "best"), str(out / "step-12"), str(out / "step-8")]
    assert (
        run(["evaluate", *dict.fromkeys(b for b in both if b != str(out / f"step-{best}")), "--iid", str(data / "val")])
        == 0
    )
    assert f"run@step-{best}" in capsys.readouterr().out


def test_ctrl_c_in_the_middle_saves_and_a_second_one_aborts(data, tmp_path):
    out = tmp_path / "run"
    more = ["--checkpoint.every", "0", "--epochs", "2000"]
    first = Terminal(*options(data, out, *more))
    first.read_until("gradient norm")  # steps are being done, nothing is saved
    first.press_ctrl_c()
    assert first.wait() == 75
    shown = re.sub(r"\s+", " ", first.shown)
    step = int(re.search(r"stopped and saved at step (\d+)", shown)[1])
    assert f"to continue: unstill train demo_baseline --data {data / 'train'}" in shown
    assert pointed(out / "checkpoints").name == f"step-{step:08d}"

    obeys = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731  (ignored where tests run in the background)
    command = [*UNSTILL, *options(data, out, *more)]
    second = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=obeys)
    for line in second.stderr:
        if " epoch " in line:
            os.kill(second.pid, signal.SIGSTOP)  # both arrive before the step at hand ends
            os.kill(second.pid, signal.SIGINT)
            os.kill(second.pid, signal.SIGCONT)
            break
    rest = ""
    for line in second.stderr:
        rest += line
        if "Ctrl-C again aborts" in line:
            os.kill(second.pid, signal.SIGINT)
    assert second.wait() in (75, 130)  # 75 where the step ended between the two
    if second.returncode == 130:
        assert f"newest checkpoint is that of step {step}" in rest and "are lost" in rest


def test_a_terminal_that_goes_away_saves_the_run(data, tmp_path):
    terminal = Terminal(*options(data, tmp_path / "run", "--checkpoint.every", "0", "--epochs", "2000"))
    terminal.read_until("gradient norm")
    terminal.hang_up()
    assert terminal.wait(reading=False) == 75
    saved = pointed(tmp_path / "run" / "checkpoints")
    assert saved is not None and int(saved.name[5:]) >= 2  # a step had been shown


def damage(shards: Path) -> None:
    """Flip 40 bytes in the middle of the first video."""
    (tar,) = (shards / "shards").glob("*.tar") if (shards / "shards").is_dir() else shards.rglob("*.tar")
    content = bytearray(tar.read_bytes())
    start = content.index(b"mdat") + 200
    for position in range(start, start + 40):
        content[position] ^= 0xFF
    tar.write_bytes(content)


def test_a_damaged_validation_video_costs_a_warning(data, tmp_path, capfd):
    val = tmp_path / "val"
    shutil.copytree(data / "val", val)
    damage(val)
    assert run(options(data, tmp_path / "run", "--validation", str(val))) == 0
    shown = capfd.readouterr().err
    assert "1 of 12 videos could not be decoded and do not count" in shown
    scores = read_scores(tmp_path / "run" / "metrics.jsonl")
    assert scores.keys() == {4, 8, 12}
    best = max(scores, key=lambda step: (scores[step], -step))
    assert pointed(tmp_path / "run" / "checkpoints", "best").name == f"step-{best:08d}"
    # an evaluation must not shrink silently: there the first damaged video ends it, in one line
    assert run(["evaluate", str(tmp_path / "run"), "--iid", str(val)]) == 2


def test_a_validation_set_that_cannot_be_used_is_refused_before_the_first_step(data, tmp_path, capfd):
    other = tmp_path / "other"
    videos = tmp_path / "videos"
    for source in sorted((data / "videos" / "iid").rglob("*.mp4"))[:4]:
        folder = videos / f"other {source.parent.name}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder)
    convert(ConvertConfig(source=videos, out=other, short_side=64, workers=1))
    faults = {
        "none of the 8": ["--validation", str(other)],
        "no index found": ["--validation", str(tmp_path)],
        "which DALI cannot decode on cpu": ["--loader.decoder", "dali", "--device", "cpu"],
    }
    for words, more in faults.items():
        assert run(options(data, tmp_path / "run", *more)) == 2
        shown = capfd.readouterr().err
        assert words in shown and "step 2/" not in shown
        assert not (tmp_path / "run").exists()


def test_two_processes_share_validation_and_evaluation(data, tmp_path, unstill):
    out = tmp_path / "run"
    views = ["--views.temporal", "3", "--batch-size", "5", "--compile", "off"]

    def evaluate(name: str, *more: str) -> list[str]:
        return ["evaluate", str(out), "--iid", str(data / "val"), "--out", str(tmp_path / name), *more]

    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--no-python"]
    command = [*launch, *shlex.split(unstill), *options(data, out), "then", *evaluate("two", *views)]
    environment = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE")}
    environment |= {"OMP_NUM_THREADS": "1", "UNSTILL_BEFORE": THEN}
    done = subprocess.run(command, capture_output=True, text=True, timeout=SAFETY_S, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr.count("data: ") == 1 and "2 processes, each with cpu" in done.stderr
    scores = read_scores(out / "metrics.jsonl")
    assert scores.keys() == {4, 8, 12}

    assert run(evaluate("one", *views)) == 0
    one, two = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in ("one", "two"))
    assert one["models"] == two["models"]
    assert run(evaluate("single")) == 0
    share = json.loads((tmp_path / "single" / "evaluation.json").read_text())["models"]["run"]["shares"]["iid"]
    assert share["value"] == pytest.approx(scores[12], abs=1e-6)
