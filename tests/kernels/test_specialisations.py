"""Compiling is what the kernels' tests wait for on a GPU: there they take one shape a mode."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

MOST = 40  # 166 with all cases, which would be a minute of compiling
FILES = ("test_clip_prep.py", "test_static_losses.py", "test_step_boundary.py")


@pytest.mark.slow
def test_few_kernels_are_compiled_on_a_gpu():
    folder = Path(__file__).parent
    environment = dict(os.environ) | {"UNSTILL_KERNEL_GRID": "gpu", "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "count_specialisations", "-p", "no:cacheprovider"]
    command += ["-k", "triton or not (torch or opcheck or compiles or gradcheck or refused)"]  # launches kernels
    command += [str(folder / file) for file in FILES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-4000:]
    assert 10 < int(re.search(r"specialisations: (\d+)", done.stdout)[1]) <= MOST
