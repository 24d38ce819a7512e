"""The command line: every command explains itself, and a mistake is one line and an exit code."""

import subprocess
import sys

import pytest

from unstill.trainer.cli import main as cli


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_every_command(name, capsys):
    try:
        code = cli.run([name, "--help"])
    except SystemExit as stop:  # how the option parser ends
        code = stop.code
    assert code == 0
    assert f"unstill {name}" in capsys.readouterr().out


def test_the_list_names_every_command(capsys):
    assert cli.run([]) == 0
    out = capsys.readouterr().out
    assert all(f"unstill {name}" in out for name in cli.COMMANDS)


@pytest.mark.parametrize("arguments", ["audit no", "convert no out", "verify no", "ood build no no out"])
def test_commands_about_files_do_not_wait_for_torch(arguments):
    """Loading torch and DALI took 12 of the 15 seconds in which `unstill audit` named a missing folder."""
    program = f"import sys; from unstill.trainer.cli.main import run; run({arguments.split()!r})"
    check = "; assert not {'torch', 'torchvision', 'nvidia.dali', 'triton'} & set(sys.modules), set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", program + check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nosuch"], "nosuch"),
        (["train", "nosuch_recipe"], "nosuch_recipe"),
        (["verify", "no/such/dataset"], "no/such/dataset"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(arguments, named, capsys):
    assert cli.run(arguments) == 2
    error = capsys.readouterr().err
    assert named in error and error.count("\n") == 1
