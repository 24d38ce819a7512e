"""The progress line: numbers are whole at 80 columns, and a resumed run counts what was done before."""

import io
import re

import pytest
from rich.console import Console

from unstill.pipeline import progress as module
from unstill.pipeline.progress import Progress


@pytest.mark.parametrize(("stage", "count"), [("converting", 1000), ("choosing frames to keep", 90_000_000)])
def test_time_left_is_whole_beside_a_long_note(stage, count):
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80, color_system=None)
    with Progress(stage, count, "videos", console) as bar:
        bar._start -= 10  # some 50 videos/s, or 4.5 million, however fast the machine is
        bar.advance(count // 2, note="123 quarantined, 456 of another codec and a great many more words than fit")
        assert bar._bar is not None
        bar._bar.stop()
        with console.capture() as capture:
            console.print(bar._bar.get_renderable())
    (line,) = capture.get().strip().splitlines()
    note = r" 123 qu.*…" if count == 1000 else ""  # there is no room for one
    assert f"{count // 2}/{count}" in line and re.search(rf" videos/s (-:--:--|\d:\d\d:\d\d){note}\s*$", line)
    assert len(line) <= 80


def test_a_resumed_run_counts_what_was_done_before(capsys, monkeypatch):
    now = iter([0.0, 10.0, 10.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    with Progress("converting", 58, "videos", before=14) as bar:
        bar.advance(20)
    assert "34/72 videos, 2.0 videos/s" in capsys.readouterr().err
