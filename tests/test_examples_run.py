"""What examples/ and docker/ hold is run as a reader runs it, small: notebook, own videos, loop, Slurm array."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from unstill.pipeline.shards.index import SampleIndex
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """train/CLASS/*.mp4 and val/CLASS/*.mp4, 24 and 8 procedural videos."""
    folder = tmp_path_factory.mktemp("videos")
    write_motions(MotionsConfig(out=folder, train=24, test=8, splits=("train", "iid"), workers=1))
    (folder / "iid").rename(folder / "val")
    return folder


@pytest.fixture
def environment(tmp_path, unstill):
    """An `unstill` on PATH, one thread, no picture on a screen."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "unstill").write_text(f'#!/bin/sh\nexec {unstill} "$@"\n')
    (tools / "unstill").chmod(0o755)
    path = {"PATH": f"{tools}:{os.environ['PATH']}"}
    return os.environ | path | {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "CUDA_VISIBLE_DEVICES": ""}


def run(command, where, environment):
    done = subprocess.run(command, cwd=where, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_the_notebook_runs_from_top_to_bottom(tmp_path, environment):
    notebook = json.loads((EXAMPLES / "demonstration.ipynb").read_text())
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "clear the outputs before committing"
    (tmp_path / "notebook.py").write_text("\n\n".join(cells))
    small = {"UNSTILL_SMALL": "1", "UNSTILL_OUT": str(tmp_path / "out")}
    out = run([sys.executable, "notebook.py"], tmp_path, environment | small)
    assert "true class:" in out and "ALBAR:" in out and (tmp_path / "out/report.html").exists()
    card = (tmp_path / "out/models/albar/README.md").read_text()
    assert "| Contrasted ↑ |" in card and "16 videos" in card


@pytest.mark.slow
def test_own_videos_to_a_model_with_its_card(videos, tmp_path, environment):
    small = {
        "RECIPE": "demo_albar",
        "CONVERT": "--codec vp9 --workers 1",
        "TRAIN": "--batch-size 8 --epochs 1 --checkpoint.every 1",
        "EXPORT": "--formats",
    }
    out = run(["sh", EXAMPLES / "own_data.sh", videos], tmp_path, environment | small)
    assert re.search(r"then: unstill train RECIPE --data \S+/train --validation \S+/val --out", out)
    card = (tmp_path / "runs/own/model/README.md").read_text()
    assert "| IID ↑ |" in card and "%" in out.splitlines()[-1]


@pytest.mark.slow
def test_the_loop_and_an_array_of_conversions(videos, tmp_path, environment):
    source, out = str(videos / "train"), str(tmp_path / "data")
    options = ["--codec", "vp9", "--short-side", "48", "--samples-per-shard", "5"]
    run(["unstill", "convert", source, out, *options, "--shards", "0:0"], tmp_path, environment)
    script = str(EXAMPLES / "launch" / "slurm_convert.sbatch")
    for task in (4, 3, 5):  # any order; the last one merges
        assert not (tmp_path / "data/dataset.json").exists()
        of = {"SLURM_ARRAY_TASK_ID": task, "SLURM_ARRAY_TASK_MIN": 3, "SLURM_ARRAY_TASK_MAX": 5}
        slurm = {name: str(value) for name, value in of.items()} | {"SLURM_CPUS_PER_TASK": "1"}
        run(["bash", script, source, out, *options], tmp_path, environment | slurm)
    assert len(SampleIndex.load(tmp_path / "data")) == 24
    small = ["--steps", "2", "--batch-size", "2", "--frames", "4", "--size", "32"]
    said = run([sys.executable, EXAMPLES / "loop.py", out, *small], tmp_path, environment)
    assert re.match(r"step 2 of 2: loss \d", said)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec("lightning"), reason="Lightning is not installed")
def test_lightning_trains_two_epochs(videos, tmp_path, environment):
    source, out = str(videos / "train"), str(tmp_path / "data")
    run(["unstill", "convert", source, out, "--codec", "vp9", "--short-side", "48"], tmp_path, environment)
    script = EXAMPLES / "lightning_loop.py"
    said = run(
        [sys.executable, script, out, "--size", "32", "--batch-size", "6", "--epochs", "2"], tmp_path, environment
    )
    assert "Epoch 1/1" in said and "4/4" in said and re.search(r"loss: \d", said)


def test_the_image_decodes_on_the_gpu_and_runs_as_a_user():
    text = (ROOT / "Dockerfile").read_text()
    capabilities = re.search(r"NVIDIA_DRIVER_CAPABILITIES=(\S+)", text)
    assert capabilities and set(capabilities[1].split(",")) >= {"compute", "utility", "video"}
    assert re.search(r"^FROM nvidia/cuda:13\.", text, re.MULTILINE) and re.search(r"^USER (?!root)", text, re.MULTILINE)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
    assert all((ROOT / path).exists() for line in copied for path in line.split())
    sent = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line.startswith("!")}
    assert {"docker", "requirements", "pyproject.toml", "src", "bench", "kernels", "pipeline", "trainer"} <= sent
