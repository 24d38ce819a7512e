"""Help texts flow, and say nothing where there is nothing to say."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from unstill.bench import suites
from unstill.trainer.cli.diagnostics import QUESTIONS
from unstill.trainer.cli.help_texts import paragraphs, parse, polish
from unstill.trainer.cli.main import COMMANDS, run
from unstill.trainer.cli.recipe_words import MEMORY, in_one_line
from unstill.trainer.recipes import RECIPES

ROOT = Path(__file__).parents[3]


def test_a_help_text_breaks_where_there_is_an_empty_line_alone():
    text = "One sentence that\n    goes on, `here`\n    and ``there``.\n\n    Another\n    one.\n\n    unstill train\n"
    assert paragraphs(text) == "One sentence that goes on, `here` and `there`.\n\nAnother one.\n\nunstill train"


def test_lines_of_a_help_keep_their_width():
    for line, expected in {
        "│ --out {None}|PATH    Folder.                   │": "│ --out PATH           Folder.",
        "│ --clip {None}|INT INT                          │": "│ --clip INT INT",
        "│ [[PATH [PATH ...]]]  Runs.                     │": "│ [PATH ...]           Runs.",
        "│ --scuba [STR PATH [STR PATH ...]]  Sets.       │": "│ --scuba [STR PATH ...]             Sets.",
        "│ --seed INT           Of it. (default: 0)       │": "│ --seed INT           Of it. (default: 0)",
    }.items():
        assert polish(line) == expected.ljust(len(line) - 1) + "│"


def test_usage_and_description_are_broken_between_options_and_words():
    usage = "usage: unstill bench x [-h] [--out {None}|PATH] [--videos [PATH [PATH ...]]] [--n INT] A"
    lines = ["usage: unstill bench x [-h] [--out PATH]", "       [--videos [PATH ...]] [--n INT] A"]
    assert polish(usage, 44).splitlines() == lines
    assert polish("one two three", 7) == "one two\nthree"


HELPS = [
    *([name] for name in COMMANDS if name not in ("train", "diagnose", "ood", "detect", "bench", "completion")),
    *(["diagnose", question] for question in QUESTIONS),
    *(["ood", action] for action in ("build", "check")),
    *(["detect", action] for action in ("fit", "score")),
    *(["train", recipe] for recipe in ("own_small_albar", "hmdb51_albar_stillmix", "kinetics400_swin_t", "choi_sdn")),
    *(["bench", suite] for suite in (*suites.names(), "report")),
    *([name] for name in ("train", "diagnose", "ood", "detect", "bench", "completion")),
    [],
]


@pytest.mark.parametrize("words", HELPS, ids=" ".join)
def test_every_help_on_a_screen_of_80_columns(words, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    try:
        code = run([*words, "--help"])
    except SystemExit as stop:  # how the option parser ends
        code = stop.code
    said = capsys.readouterr().out
    assert code == 0 and " ".join(["unstill", *words]) in said
    assert [line for line in said.splitlines() if len(line) > 80] == []
    flat = " ".join(re.sub("[│─╭╮╰╯]", " ", said).split())
    assert [mark for mark in ("``", "{None}", "(default: None)", "(default: )", "<class") if mark in flat] == []
    assert words[:1] == ["bench"] or not re.search(r"\w\.py\b", flat), "who reads this has no source code open"
    usage = said.split("\n\n")[0]
    assert usage.count("[") == usage.count("]")


def test_long_words_in_brackets_take_no_longer_than_others():
    """In a pattern that divides words in every possible way, 60 characters would take years."""
    words = "[{" + "anomaly,localisation,detection," * 3 + "transfer}"
    assert polish(f"│ --tasks {words} │") == f"│ --tasks {words} │"


@dataclass(frozen=True)
class Options:
    """Something."""

    one_with_a_long_name: Path | None = None
    """A folder, and so many words that the line has no room left for more of them."""
    another: int = 3
    """A number."""


def test_a_line_that_says_nothing_leaves_no_gap(monkeypatch, capsys):
    for columns in range(70, 90):
        monkeypatch.setenv("COLUMNS", str(columns))
        with pytest.raises(SystemExit):
            parse(Options, args=["--help"])
        said = capsys.readouterr().out
        assert "None" not in said and "\n\n│" not in said and "│\n\n" not in said.rstrip().rpartition("│")[0]


def test_the_first_line_of_a_recipe_says_data_network_method_and_memory():
    lines = {name: in_one_line(recipe) for name, recipe in RECIPES.items()}
    assert lines["hmdb51_albar"] == (
        "HMDB51 (data/hmdb51/train); swin3d_t, 32x2 frames of 224, fp32; ALBAR; batch 6, about 22 GiB."
    )
    assert "ALBAR + StillMix" in lines["hmdb51_albar_stillmix"] and "cross entropy" in lines["own_small"]
    assert all(line.count("; ") == 3 and "batch " in line for line in lines.values())


def test_the_memory_of_the_table_is_that_of_the_plan():
    rows = json.loads((ROOT / "bench/results/memory-plan.json").read_text())["rows"]
    planned = {
        (row["model"], row["clip"], {"albar": "ALBAR"}.get(row["method"], row["method"]), row["precision"]): row
        for row in rows
        if "fixed_gib" in row
    }
    for key, (fixed, each) in MEMORY.items():
        row = planned[key]
        assert fixed == pytest.approx(row["fixed_gib"], rel=0.02) and each == pytest.approx(row["value"], rel=0.02), key
