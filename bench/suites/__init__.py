"""The benchmarks: each file here is one, by its own name, and nothing else has to know of it. It has

a docstring         its first line is the summary that `unstill bench` shows
run(config)         measures, writes the result file row by row, returns its path; ``config`` is a frozen dataclass
                    of options, found by the annotation
SECTIONS            name of a result file -> its section of the report, with the figures that its rows name
"""

import ast
import importlib
import re
from pathlib import Path
from types import ModuleType

from ..harness.section import Section


def names() -> list[str]:
    """All benchmarks, by listing the folder."""
    return sorted(path.stem for path in Path(__file__).parent.glob("*.py") if path.stem != "__init__")


def summary(name: str) -> str:
    """What a benchmark measures, in a sentence; read from its file, for importing it takes seconds."""
    text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{name}.py").read_text())) or ""
    first = re.sub(r"^`unstill bench \w+`: ", "", text.partition("\n\n")[0].replace("\n", " "))
    return first[:1].upper() + first[1:]


def load(name: str) -> ModuleType:
    """The module of a benchmark."""
    return importlib.import_module(f".{name}", __package__)


def sections() -> dict[str, Section]:
    """Name of a result file -> its section, of all benchmarks."""
    return {name: section for suite in names() for name, section in load(suite).SECTIONS.items()}
