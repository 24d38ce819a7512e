"""Recipes: functions that return a full configuration. Change one with ``dataclasses.replace`` or by flags.

Names: data set, then method. There is one module for each family, with its recipes in a tuple ``RECIPES``; a new family
is a line in ``FAMILIES``.
"""

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..config import TrainConfig

    RECIPES: dict[str, Callable[[], TrainConfig]]
    """Every recipe by its name; the families are imported on first use."""

FAMILIES = (
    ".hmdb51",
    ".ucf101",
    ".kinetics400",
    ".kinetics400_networks",
    ".own",
    ".choi",
    ".transfer",
    "..demo.recipes",
)


def __getattr__(name: str) -> "dict[str, Callable[[], TrainConfig]]":
    if name != "RECIPES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    families = (importlib.import_module(family, __package__) for family in FAMILIES)
    globals()["RECIPES"] = {recipe.__name__: recipe for family in families for recipe in family.RECIPES}
    return globals()["RECIPES"]
