"""README's blocks run in their order, in one folder, as a reader who copies them would: from videos to a loop."""

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import torch
from torchvision.models.video import R3D_18_Weights, r3d_18

from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig

ROOT = Path(__file__).parents[2]


def target_runs(line: str) -> None:
    """make knows the target; `make demo` in small is tests/trainer/demo/test_demo.py, and `make test` is this run."""
    shown = subprocess.run([*line.split(), "--dry-run"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert {"demo": "bin/unstill demo", "test": "-m pytest"}[line.split()[1]] in shown


def extras_exist(line: str) -> None:
    """.ci/run installs the package."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for extras in re.findall(r"\[([\w,]+)\]", line):
        assert set(extras.split(",")) <= set(project["optional-dependencies"]), line


# a line that would install or test everything -> what is done instead; all other lines are run
INSTEAD = {
    "make demo": target_runs,
    "make test": target_runs,
    "pip install .": extras_exist,
    "pip install '.[hf]'": extras_exist,
}
# beginning of a line -> options that make its run short; README itself has the first of them for a CPU
SHORTER = {"unstill train own_small_albar ": "--step.compile off --epochs 1 --clip.size 16"}


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, code) of fenced blocks and of indented ones, which are commands, in the order of the page."""
    found = re.finditer(r"^```(\w*)\n(.*?)^```|^\n((?:    [^\n]+\n)+)", text, re.MULTILINE | re.DOTALL)
    return [
        (match[1], match[2]) if match[3] is None else ("bash", re.sub("(?m)^    ", "", match[3])) for match in found
    ]


@pytest.fixture
def reader(tmp_path, unstill, monkeypatch):
    """An empty folder but for videos/train and videos/val, `unstill` on PATH, Kinetics weights as if downloaded."""
    write_motions(MotionsConfig(out=tmp_path / "videos", train=16, test=8, splits=("train", "iid"), workers=1))
    (tmp_path / "videos/iid").rename(tmp_path / "videos/val")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/unstill").write_text(f'#!/bin/sh\nexec {unstill} "$@"\n')
    (tmp_path / "bin/unstill").chmod(0o755)
    weights = tmp_path / "torch/hub/checkpoints" / Path(R3D_18_Weights.KINETICS400_V1.url).name
    weights.parent.mkdir(parents=True)
    torch.save(r3d_18().state_dict(), weights)  # of the right shapes; the values are random
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_block_runs(reader):
    said, replaced, names = "", [], {}
    for language, code in blocks((ROOT / "README.md").read_text()):
        if language == "python":
            exec(compile(code, "README.md", "exec"), names)
            continue
        assert language in ("bash", "sh", ""), f"a block of {language!r}: say here how it is run"
        script = []
        for line in code.replace("\\\n", " ").splitlines():
            command = line.split("  #")[0].strip()
            if command in INSTEAD:
                INSTEAD[command](command)
                replaced.append(command)
            else:
                more = [options for beginning, options in SHORTER.items() if command.startswith(beginning)]
                script.append(" ".join([command, *more]))
                replaced += [beginning for beginning in SHORTER if command.startswith(beginning)]
        done = subprocess.run(["bash", "-e", "-c", "\n".join(script)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{code}\n{done.stderr[-2000:]}"
        said += done.stdout
    assert sorted(replaced) == sorted([*INSTEAD, *SHORTER]), "rules that no line of README needs"
    assert re.search(r"IID ↑ +│ 8 │ +\d", said) and "model mine: runs/mine, step 2" in said
    assert names["clips"].frames.shape == (4, 16, 112, 112, 3) and names["loader"].index.classes[0] == "down"
