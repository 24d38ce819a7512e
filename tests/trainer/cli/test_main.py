"""The command line: every command explains itself, and a mistake is one line and an exit code."""

import dataclasses
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from unstill.trainer.cli import main as cli
from unstill.trainer.config import from_dict
from unstill.trainer.demo.circular_shift import CircularShift
from unstill.trainer.inputs.config import InputConfig
from unstill.trainer.recipes.hmdb51 import hmdb51_albar


def test_the_list_names_every_command(capsys):
    assert cli.run([]) == 0
    out = capsys.readouterr().out
    assert all(f"unstill {name}" in out for name in cli.COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", ["audit no", "convert no out", "verify no", "ood build no no out"])
def test_commands_about_files_do_not_wait_for_torch(arguments):
    """Loading torch and DALI took 12 of the 15 seconds in which `unstill audit` named a missing folder."""
    program = f"import sys; from unstill.trainer.cli.main import run; run({arguments.split()!r})"
    check = (
        "; assert not {'torch', 'torchvision', 'nvidia.dali', 'triton', 'numba'} & set(sys.modules), set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


HELP = [[name, "--help"] for name in ("evaluate", "demo", "hat", "scene-bias", "still-bank", "export", "predict")]
DIAGNOSE = [["diagnose"], ["diagnose", "look", "--help"], ["diagnose", "lok"]]


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["--help"], ["trian"], ["train"], ["train", "nosuch"]),
        *(["train", "hmdb51_albar", "--help"], ["train", "demo_albar_sdn", "--batch-sise", "2"]),
        *(pytest.param(arguments, marks=pytest.mark.slow) for arguments in HELP + DIAGNOSE),
    ],
    ids=" ".join,
)
def test_help_and_typos_do_not_wait_for_torch(arguments):
    """They took 5 CPU-seconds, all of it imports; modules are counted, for seconds depend on the machine."""
    program = f"import sys\nfrom unstill.trainer.cli.main import run\ntry: run({arguments!r})\nexcept SystemExit: pass"
    heavy = "{'torch', 'torchvision', 'triton', 'nvidia', 'matplotlib', 'jinja2', 'av', 'numba'}"
    check = f"found = {heavy} & set(sys.modules); sys.exit(str(found) if found else 0)"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{check}"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("arguments", "meant"),
    [
        (["evalute"], "evaluate"),
        (["train", "hmdb51_alber"], "hmdb51_albar"),
        (["ood", "biuld", "a", "b", "c"], "build"),
        (["diagnose", "infomation", "run"], "information"),
        (["train", "hmdb51_albar", "--method.w-adw", "1"], "--method.w-adv"),
    ],
)
def test_a_typo_is_answered_with_what_was_probably_meant(arguments, meant, capsys):
    try:
        code = cli.run(arguments)
    except SystemExit as stop:  # how the option parser ends
        code = stop.code
    assert code == 2 and meant in capsys.readouterr().err


@pytest.mark.parametrize("name", cli.MOVED)
def test_commands_that_moved_still_work_and_say_where_they_are(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.run([name, "--help"])
    shown = capsys.readouterr()
    assert stop.value.code == 0 and f"unstill diagnose {name}" in shown.out
    assert shown.err == f"unstill: {name} is now `unstill diagnose {name}`\n"


def test_inputs_have_flags_without_a_prefix(monkeypatch):
    """As in version 0.1.0; what a recipe chooses besides stays."""
    seen = []
    monkeypatch.setattr("unstill.trainer.train.train", lambda config: seen.append(config) or sys.exit(0))
    with pytest.raises(SystemExit):
        cli.run(["train", "demo_albar", "--mean", "0", "0.5", "1", "--people", "boxes.csv"])
    (config,) = seen
    assert config.inputs == InputConfig(
        mean=(0.0, 0.5, 1.0), std=(60 / 255,) * 3, people=Path("boxes.csv"), transform=CircularShift()
    )


def test_only_unstill_logs_what_is_going_on(monkeypatch):
    """`unstill export --formats onnx` printed 15 lines of ONNX's optimiser."""
    for name in ("", "unstill"):
        monkeypatch.setattr(logging.getLogger(name), "level", logging.NOTSET if name else logging.WARNING)
    cli.run(["nosuch"])
    cli.run(["verify", "no"])
    assert logging.getLogger("unstill.trainer.train").isEnabledFor(logging.INFO)
    assert not logging.getLogger("onnx_ir").isEnabledFor(logging.INFO)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["train", "nosuch_recipe"], "nosuch_recipe"),
        (["verify", "no/such/dataset"], "no/such/dataset"),
        (["verify", "no/such/dataset", "--device", "cpu"], "no/such/dataset"),
        (["evaluate", "run", "--iid", "x", "--out", __file__], "is a file, expected a folder"),  # not after the work
        (["diagnose", "scene-bias", "a", "b", "--run", "c", "--out", f"{__file__}/x"], "is a file, expected a folder"),
        (
            ["detect", "fit", "a", *"--train b --test c --truth d --out".split(), __file__],
            "is a file, expected a folder",
        ),
        (["anomaly", "a", *"--train-list b --truth c --out".split(), __file__], "is a file, expected a folder"),
        (["localise", "a", "b", __file__], "is a file, expected a folder"),
        (["predict", "--model", "x"], "no video given"),
        (["evaluate", "nosuch", "--iid", "x"], "nosuch: no such folder"),
        (["evaluate", "run", "--scuba", "places", "--iid", "x"], "--scuba places: expected pairs, --scuba NAME VALUE"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments, named, capsys):
    assert cli.run(arguments) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1


def test_the_configuration_is_printed_as_config_json_has_it(capsys):
    assert cli.run(["train", "hmdb51_albar", "--batch-size", "12", "--print-config"]) == 0
    shown = json.loads(capsys.readouterr().out)
    config = from_dict(shown)
    assert (config.batch_size, config.device, shown["method"]["kind"]) == (12, "auto", "Albar")
    assert config == dataclasses.replace(hmdb51_albar(), batch_size=12)
