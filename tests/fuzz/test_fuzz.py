"""A few cases of every campaign; ``campaign.py`` runs as many as are asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

# in two processes, which share what is imported: about 25 s of CPU time each
GROUPS = [
    {"index": 6, "columns": 8, "mp4": 4, "mp4-cores": 4, "mp4-isolate": 2},
    {"manifests": 20, "shards": 20, "tars": 40, "lists": 60, "classes": 20, "masks": 40, "results": 40}
    | {"checkpoint": 20, "export": 20},
]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=["datasets", "files"])
def test_no_case_ends_as_none_may(group):
    # in a process of its own: cases are forked, and nothing of DALI or of threads may run where they are
    command = [sys.executable, str(Path(__file__).with_name("campaign.py"))]
    names = [f"{name}:{cases}" for name, cases in group.items()]
    done = subprocess.run([*command, ",".join(names), "--seed", "11"], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]
