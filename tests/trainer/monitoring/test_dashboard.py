"""What a run shows: plain lines without a terminal, a panel on one, and nothing that could stop it."""

import io
import sys
import time
import types

import pytest
from rich.console import Console

from unstill.pipeline.errors import InputError
from unstill.trainer.methods import Albar, Sdn, TwoStreams
from unstill.trainer.monitoring.dashboard import Dashboard
from unstill.trainer.monitoring.metrics import TensorBoard, WandB

RECORD = {"step": 50, "epoch": 1.5, "loss": -3.2, "top1": 0.5, "static_entropy_share": 0.97, "skipped": 0, "mfu": 0.41}


def test_lines_without_a_terminal(capsys):
    console, terms = Console(file=io.StringIO()), Albar().shown_terms
    with Dashboard("swin3d_t albar", steps=100, terms=terms, console=console) as dashboard:
        dashboard.step(50)
        dashboard.show(RECORD)
        dashboard.scored(50, 81.25)
        dashboard.warnings({"flipping": "class flipping, 60 %"})
        dashboard.warnings({"flipping": "class flipping, 70 %"})  # the same one: said once
        dashboard.show(RECORD | {"skipped": 2})
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("swin3d_t albar step 50/100 epoch 1.50  loss -3.2  motion top-1 50.0%")
    assert "static entropy / ln C 0.970" in lines[0] and "MFU 41.0%" in lines[0] and "skipped" not in lines[0]
    assert lines[1] == "swin3d_t albar step 50/100  validation 81.25"
    assert lines[2] == "warning: class flipping, 60 %"
    assert "validation 81.25 (step 50)" in lines[3] and "skipped steps 2" in lines[3] and len(lines) == 4


def test_a_panel_on_a_terminal_however_narrow(capsys):
    for width in (20, 100):
        screen = io.StringIO()
        console = Console(file=screen, force_terminal=True, width=width)
        with Dashboard("swin3d_t albar", steps=100, terms=Albar().shown_terms, console=console) as dashboard:
            dashboard.step(48)
            dashboard.show(RECORD)
            dashboard.warnings({"flipping": "class flipping"})
            dashboard.step(52)
        assert ("52/100" if width == 100 else "52/") in screen.getvalue()
        left = screen.getvalue().split("\x1b[2K")[-1].split()  # after the panel was wiped
        assert left[:3] == ["warning:", "class", "flipping"] and "50/100" in left
    assert capsys.readouterr().err == ""


def test_only_the_first_rank_speaks(capsys):
    with Dashboard("a", steps=10, visible=False) as dashboard:
        dashboard.show(RECORD)
        dashboard.warnings({"any": "unseen"})
        dashboard.scored(50, 81.25)
    assert capsys.readouterr().err == ""


def panel(dashboard, width=80):
    screen = io.StringIO()
    Console(file=screen, force_terminal=False, width=width).print(dashboard._panel())
    return screen.getvalue()


def test_the_panel_fits_80_columns_and_says_the_epoch(monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    console = Console(file=io.StringIO(), force_terminal=False, width=80)
    terms = Albar(base=TwoStreams()).shown_terms
    title = "unstill.trainer.models.frame_net:resnet50 albar + background_erasing, a long name all in all"
    dashboard = Dashboard(title, 90, terms, done=40, steps_per_epoch=9.0, console=console)
    with dashboard:
        clock[0] += 30
        assert "first step, 30 s" in panel(dashboard)  # compiling: the time is shown, not 0 s
        clock[0] += 30
        dashboard.step(41)
        clock[0] += 20
        dashboard.step(43)
        dashboard.show(
            {name: 0.123456 for name in terms} | RECORD | {"lr": 1e-4, "grad_norm": 3.21, "clips_per_s": 9e3}
        )
        dashboard.scored(40, 63.1)
        shown = panel(dashboard)
    # of the steps after the first, at 10 s each; not from the 60 s of compiling, nor as if it had begun at step 0
    assert "43/90 steps  epoch 4.78  7 min 50 s left" in shown and "63.10 (step 40)" in shown
    assert len(shown.splitlines()) == 2 + -(-len(dashboard._cells()) // 2)  # no cell breaks


def test_the_panel_is_drawn_by_time_and_drops_what_is_over():
    class Screen(io.StringIO):
        def isatty(self):
            return True

    screen = Screen()
    console = Console(file=screen, force_terminal=True, width=80)
    with Dashboard("net", steps=100, console=console) as dashboard:
        dashboard.warnings({"chance": "accuracy is at chance"})
        dashboard.step(1)
        deadline = time.monotonic() + 600
        while "at chance" not in screen.getvalue() and time.monotonic() < deadline:
            time.sleep(0.05)  # one step alone, and no second one, brings it to the screen
        assert "1/100 steps" in screen.getvalue() and "at chance" in screen.getvalue()
        dashboard.warnings({})
        assert "at chance" not in panel(dashboard)


def test_each_method_names_its_own_terms():
    base = Albar(base=TwoStreams()).shown_terms
    assert {"hsic", "biased_ce", "gp", "static_flip"} <= base.keys() and "gp" not in TwoStreams().shown_terms
    with Dashboard("sdn", steps=10, terms=Sdn().shown_terms, console=Console(file=io.StringIO())) as dashboard:
        dashboard.show({"step": 1, "epoch": 0.1, "scene_ce": 2.5, "gp": 1.0})
        line = dashboard._line()
    assert "scene CE 2.500" in line and "penalty" not in line


def test_extra_loggers_are_asked_for_by_name(monkeypatch, tmp_path):
    for name in ("torch.utils.tensorboard", "wandb"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(InputError, match="pip install tensorboard"):
        TensorBoard(tmp_path)
    with pytest.raises(InputError, match="pip install wandb"):
        WandB(tmp_path, {})

    written = []

    class SummaryWriter:
        def __init__(self, folder):
            assert folder == str(tmp_path)

        def add_scalar(self, *scalar):
            written.append(scalar)

        def close(self):
            written.append("closed")

    fake = types.ModuleType("torch.utils.tensorboard")
    fake.SummaryWriter = SummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", fake)
    writer = TensorBoard(tmp_path)
    writer.write({"step": 4, "loss": 1.5, "gp": None})
    writer.close()
    assert written == [("loss", 1.5, 4), "closed"]
