"""The command line: every command explains itself, and a mistake is one line and an exit code."""

import pytest

from unstill.trainer import cli


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
