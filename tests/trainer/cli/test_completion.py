"""Completion in the shells themselves: what the tab key offers after some words."""

import shutil
import subprocess

import pytest

from unstill.bench import suites
from unstill.pipeline.errors import InputError
from unstill.trainer.cli import completion
from unstill.trainer.cli.main import COMMANDS, SECTIONS
from unstill.trainer.recipes import RECIPES

LINES = {
    "unstill tra": {"train", "transfer"},
    "unstill train own_sm": {"own_small", "own_small_albar"},
    "unstill train hmdb51_albar --step.prec": {"--step.precision"},
    "unstill train hmdb51_albar --step.precision b": {"bf16"},
    "unstill diagnose hat --swap-b": {"--swap-backgrounds"},
    "unstill bench penalty_": {"penalty_cost"},
    "unstill export --pu": {"--push"},
}


@pytest.fixture(scope="module")
def places():
    return completion.places()


@pytest.fixture(scope="module")
def scripts(places, tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    for shell, write in completion.WRITERS.items():
        (folder / f"unstill.{shell}").write_text(write(places))
    return folder


def test_every_name_is_offered(places):
    assert set(places[""].names) == set(COMMANDS) == {name for names in SECTIONS.values() for name in names}
    assert set(places["train"].names) == set(RECIPES)
    assert set(places["bench"].names) == {*suites.names(), "report", "all"}
    assert all(place.names or place.options for place in places.values())
    assert places["convert"].options["--codec"] and "--out" in places["export"].options


def test_bash(scripts):
    program = """source $1
read -ra COMP_WORDS <<< "$2"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _unstill; printf '%s\\n' "${COMPREPLY[@]}" """
    for line, expected in LINES.items():
        command = ["bash", "-c", program, "bash", str(scripts / "unstill.bash"), line]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=scripts)
        assert set(done.stdout.split()) == expected, (line, done.stderr)


@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish(scripts):
    program = 'source $argv[1]; for line in $argv[2..]; echo "== $line"; complete -C $line; end'
    command = ["fish", "--no-config", "-c", program, str(scripts / "unstill.fish"), *LINES]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=scripts)
    parts = [part.splitlines() for part in done.stdout.split("== ")[1:]]
    assert {part[0]: {line.split("\t")[0] for line in part[1:]} for part in parts} == LINES


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_zsh(scripts):
    """zsh completes on a terminal only; here what it would offer is taken from the functions that it would call."""
    program = """
compdef() { }; _describe() { for n in ${(P)4}; print -r -- ${n%%:*} }; _files() { }
compadd() { shift; for n in "$@"; print -r -- $n }
source $1; words=(${=2}); CURRENT=$#words; PREFIX=$words[-1]; _unstill | grep -e "^$PREFIX" """
    for line, expected in LINES.items():
        command = ["zsh", "-f", "-c", program, "zsh", str(scripts / "unstill.zsh"), line]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=scripts)
        assert set(done.stdout.split()) == expected, (line, done.stderr)


def test_another_shell_is_refused():
    with pytest.raises(InputError, match="no shell named 'tcsh'"):
        completion.run(["tcsh"])
