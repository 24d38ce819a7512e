"""A few cases of every campaign; ``campaign.py`` runs as many as are asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

GROUPS = [  # in two processes, which share what is imported
    {"index": 5, "columns": 6, "mp4": 3, "mp4-cores": 3, "mp4-isolate": 1},
    {"manifests": 10, "shards": 10, "tars": 20, "lists": 30, "classes": 10, "masks": 20, "results": 20}
    | {"checkpoint": 10, "export": 10},
]


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS, ids=["datasets", "files"])
def test_no_case_ends_as_none_may(group):
    # in a process of its own: cases are forked, and nothing of DALI or of threads may run where they are
    command = [sys.executable, str(Path(__file__).with_name("campaign.py"))]
    names = [f"{name}:{cases}" for name, cases in group.items()]
    done = subprocess.run([*command, ",".join(names), "--seed", "11"], capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout + done.stderr[-2000:]


def test_a_fault_of_the_last_case_in_time_is_reported(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    import campaign

    one = campaign.Campaign(lambda folder, draw, cases: [None] * cases, lambda folder: folder, full=2)
    monkeypatch.setitem(campaign.CAMPAIGNS, "one", one)
    monkeypatch.setattr(campaign, "alone", lambda read: ("hang", "the case that used the time up"))
    counts, bad = campaign.run("one", 2, seed=0, seconds=0)
    assert counts == {"hang": 1} and len(bad) == 1
