"""README and docs: their numbers are those of the files, their links lead somewhere, their commands are taken."""

import dataclasses
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import get_type_hints

import pytest
import tyro

from unstill.bench import suites
from unstill.pipeline.ood.build import OodConfig
from unstill.pipeline.ood.mask_check import MaskCheckConfig
from unstill.trainer.cli.diagnostics import QUESTIONS
from unstill.trainer.cli.main import COMMANDS, _load
from unstill.trainer.config import TrainConfig
from unstill.trainer.downstream.detection.config import DetectConfig, ScoreConfig
from unstill.trainer.recipes import RECIPES

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
name_of = lambda page: str(page.relative_to(REPOSITORY))  # noqa: E731


def generate(*arguments: str) -> None:
    command = [sys.executable, str(REPOSITORY / "docs" / "generate"), "--check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_tables_are_those_of_the_result_files():
    generate("tables")


@pytest.mark.slow
def test_the_reference_is_that_of_the_code():
    generate("reference")


def test_the_readme_is_short():
    words = len((REPOSITORY / "README.md").read_text().split())
    assert words <= 1200, f"{words} words; longer texts belong to docs/"


@cache
def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


LINKING = [*PAGES, *(REPOSITORY / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY", "bench/SCALING"))]


@pytest.mark.parametrize("page", [*LINKING, *sorted((REPOSITORY / "docs/reference").glob("*.md"))], ids=name_of)
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```|^    .*?$", "", page.read_text(), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^()\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        to = (page.parent / path).resolve() if path else page
        assert to.exists(), f"{target}: no such file"
        assert not anchor or anchor in anchors(to), f"{target}: no such heading"


def test_files_named_for_contributors_exist():
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`([\w./-]+(?:/|\.(?:py|md|toml|txt|yml|j2))|[\w.]+/[\w./]+)`", text)
    assert len(named) > 50
    missing = []
    for name in {name for name in named if not re.search(r"foo|NAME", name)}:
        if not (REPOSITORY / name).exists() and not any(REPOSITORY.glob(f"[bkpt]*/**/{name}")):
            missing.append(name)
    assert not missing


def test_hops_lead_to_what_they_name():
    """The table of CONTRIBUTING.md: folders, then a file, then names in it."""
    table = re.search(r"\| where \.\.\..*?\n\n", (REPOSITORY / "CONTRIBUTING.md").read_text(), re.S)
    rows = table[0].strip().splitlines()[2:]
    assert len(rows) == 4
    for row in rows:
        folder, text = REPOSITORY, None
        for hop in re.findall(r"`([^`]+)`", row):
            if hop.endswith("/"):
                folder /= hop
                assert folder.is_dir(), hop
            elif hop.endswith(".py"):
                text = next(file for file in (folder / hop, folder.parent / hop) if file.exists()).read_text()
            else:
                assert text is None or re.search(rf"\b{hop.rpartition('.')[2]}\b", text), hop


def test_folders_of_the_layout_exist():
    found, inside = 0, REPOSITORY
    for line in re.findall(r"^    .*$", (REPOSITORY / "docs" / "layout.md").read_text(), re.M):
        names = re.match(r"(\w+/\s+)*\w+/", line.strip())
        inside = inside if line.startswith("      ") else REPOSITORY
        for name in names[0].split() if names else ():
            assert (inside / name).is_dir(), line
            found += 1
        if not line.startswith("      "):
            inside = REPOSITORY / names[0]
    assert found > 25


def commands_on(page: Path) -> list[str]:
    """The command lines in the page's code, without comments; lines with a gap in them are left out."""
    indented = lambda block: re.sub(r"^", "    ", block[1], flags=re.M)  # noqa: E731
    text = re.sub(r"^```(?:\w*)\n(.*?)^```", indented, page.read_text(), flags=re.M | re.S)
    text = re.sub(r"\\\n\s+", "", text)
    lines = re.findall(r"^    (unstill [^\n#]+)", text, re.M)
    lines = [re.split(r"\s{3,}", line.strip())[0] for line in lines]
    return [line for line in lines if "..." not in line and "|" not in line]


@pytest.mark.parametrize(("page", "line"), [(page, line) for page in LINKING for line in commands_on(page)])
def test_commands_are_taken(page, line):
    """Options and recipes exist, and values are of their type."""
    name, *arguments = shlex.split(line)[1:]
    if name == "train":
        recipe, *rest = arguments
        config = RECIPES[recipe]()
        tyro.cli(
            tyro.conf.AvoidSubcommands[TrainConfig], default=config, args=[a for a in rest if a != "--print-config"]
        )
    elif name in ("ood", "diagnose"):
        kind, *rest = arguments
        options = QUESTIONS[kind].options if name == "diagnose" else OodConfig if kind == "build" else MaskCheckConfig
        tyro.cli(options, args=rest)
    elif name == "detect":
        tyro.cli({"fit": DetectConfig, "score": ScoreConfig}[arguments[0]], args=arguments[1:])
    elif name == "bench":
        suite, *rest = arguments or ["report"]
        if suite not in ("report", "all"):
            tyro.cli(get_type_hints(suites.load(suite).run)["config"], args=rest)
    else:
        tyro.cli(_load(COMMANDS[name].options), args=arguments)


# of other programs: make, pip, docker, torchrun, git
FOREIGN = "--help --version --rm --gpus --shm-size --standalone --nproc-per-node --no-python --shutdown-timeout".split()


def test_names_in_a_sentence_exist():
    """Commands, and options of commands, that stand between the words of README and docs."""
    reference = (REPOSITORY / "docs/reference/commands.md").read_text()
    known = {*FOREIGN, *re.findall(r"`(--[\w.-]+)", reference)}
    for suite in suites.names():
        fields = dataclasses.fields(get_type_hints(suites.load(suite).run)["config"])
        known |= {f"--{field.name.replace('_', '-')}" for field in fields}
    groups = {option.rpartition(".")[0] for option in known}
    missing = []
    for page in PAGES:
        for code in re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)):
            for option in re.findall(r"(?<![\w-])--[a-z][\w.-]*\w", code):
                positive = re.sub(r"(^--|\.)no-(?=[\w-]+$)", r"\1", option)
                if not {option, positive} & known and option not in groups:
                    missing.append(f"{name_of(page)}: {option}")
            name = re.match(r"unstill ([a-z-]+)", " ".join(code.split()))
            if name and name[1] not in COMMANDS:
                missing.append(f"{name_of(page)}: {code}")
    assert not missing


def test_no_sentence_stands_twice():
    """README and docs link to each other instead of repeating each other."""
    found: dict[str, Path] = {}
    for page in PAGES:
        text = re.sub(r"^```.*?^```|^    .*?$|^\|.*?$|^<!-- .*?$|^#.*?$", "", page.read_text(), flags=re.M | re.S)
        for sentence in re.split(r"(?<=[.:;])\s+|\n\n", text):
            words = " ".join(sentence.split())
            if len(words) > 50:
                assert found.get(words, page) == page, f"{name_of(page)} and {name_of(found[words])}: {words}"
                found[words] = page
