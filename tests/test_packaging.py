"""The package list in pyproject.toml names every folder with code: the wheel silently lacks one that is left out."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_package_is_published():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    roots = ("bench", "kernels", "pipeline", "trainer")
    found = {".".join(p.parent.relative_to(ROOT).parts) for r in roots for p in (ROOT / r).rglob("__init__.py")}
    assert set(listed) == {"unstill"} | {f"unstill.{name}" for name in found}
