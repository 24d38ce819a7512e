"""The structure of the code as rules: which way imports go, and what each part may not know."""

import ast
import dataclasses
import functools
import graphlib
import re
from pathlib import Path

import pytest

from unstill.trainer.methods import Albar, Baseline, Sdn, TwoStreams

REPOSITORY = Path(__file__).parents[1]
ROOTS = ("kernels", "pipeline", "trainer", "bench")  # each may import itself and those before it
FILES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for root in ROOTS
    for path in sorted((REPOSITORY / root).rglob("*.py"))
}


def imports_of(module: str) -> set[str]:
    """The project's modules that a module imports, those inside functions included.

    Not those under ``if TYPE_CHECKING``, which never run.
    """
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    found = set()
    pending: list[ast.AST] = [ast.parse(path.read_text())]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
            continue
        pending += ast.iter_child_nodes(node)
        if isinstance(node, ast.Import):
            found |= {name.name.removeprefix("unstill.") for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parents, *filter(None, [node.module])])
            base = base.removeprefix("unstill.")
            found |= {f"{base}.{name.name}" if f"{base}.{name.name}" in FILES else base for name in node.names}
    return {name for name in found if name in FILES} - {module}


@functools.cache
def imports() -> dict[str, set[str]]:
    """Of every module; a second of parsing, for the tests that ask."""
    return {module: imports_of(module) for module in FILES}


def test_imports_go_one_way_between_the_roots():
    wrong = [
        f"{module} imports {name}"
        for module, names in imports().items()
        for name in names
        if ROOTS.index(name.split(".")[0]) > ROOTS.index(module.split(".")[0])
    ]
    assert not wrong


@pytest.mark.parametrize("root", ROOTS)
def test_no_files_of_a_root_import_each_other_in_a_circle(root):
    graph = {module: names for module, names in imports().items() if module.split(".")[0] == root}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def lines_that_say(pattern: str, files: list[Path]) -> list[str]:
    """``path:number: line`` of every line that matches."""
    return [
        f"{path.relative_to(REPOSITORY)}:{number}: {line.strip()}"
        for path in files
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(pattern, line, re.IGNORECASE)
    ]


def test_the_trainer_does_not_know_the_demonstration():
    """It is a user of the trainer, as a reader is; only the table of commands and the list of recipes name it."""
    may = ("trainer/demo/", "trainer/cli/main.py", "trainer/cli/demo.py", "trainer/config_migration.py", "bench/")
    files = [
        path
        for root in (*ROOTS, "src")
        for path in sorted((REPOSITORY / root).rglob("*"))
        if path.suffix in (".py", ".j2") and not path.relative_to(REPOSITORY).as_posix().startswith(may)
    ]
    said = lines_that_say(r"\bdemo|\bmotions\b|torus|circular", files)
    assert [line.split(":")[0] for line in said] == ["trainer/recipes/__init__.py"], said


TRAINER = REPOSITORY / "trainer"
GENERAL = [
    *(TRAINER / f"{name}.py" for name in ("train", "build", "step", "loss_module", "boundary", "state", "validation")),
    *(TRAINER / "monitoring").glob("*.py"),
    *(TRAINER / "optimisers").glob("*.py"),
]
OF_ALL = {"first_stage", "base", "forward", "layers", "label_smoothing", "ce", "top1"}  # or words of other meanings
OWN_NAMES = {
    name
    for method in (Albar, Baseline, Sdn, TwoStreams)
    for name in (method.__name__, *(field.name for field in dataclasses.fields(method)), *method().shown_terms)
} - OF_ALL


@pytest.mark.parametrize("path", GENERAL, ids=lambda path: path.name)
def test_method_blind_files_name_no_method(path):
    text = path.read_text()
    assert {name for name in OWN_NAMES if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)} == set()
