"""A few cases of every campaign; ``campaign.py`` runs as many as are asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

CASES = {"index": 4, "columns": 10, "mp4": 4, "checkpoint": 20, "export": 20, "masks": 60}


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_no_case_ends_as_none_may(name):
    # in a process of its own: cases are forked, and nothing of DALI or of threads may run where they are
    campaign = Path(__file__).with_name("campaign.py")
    command = [sys.executable, str(campaign), name, str(CASES[name]), "--seed", "11"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
