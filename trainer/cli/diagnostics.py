"""``unstill diagnose``, ``scene-labels``, ``still-bank``, ``recast-clips``: options in, tables or lines out.

Each returns the exit code.
"""

import importlib
import json
from dataclasses import dataclass, replace

from rich.console import Console
from rich.table import Table

from ...pipeline.atomic_files import check_folder
from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from ..diagnostics.config import (
    HatConfig,
    InformationConfig,
    LookConfig,
    RecastClipsConfig,
    SceneBiasConfig,
    SceneLabelConfig,
    StaticDynamicConfig,
    StillBankConfig,
)
from .help_texts import parse
from .suggestions import unknown


@dataclass(frozen=True)
class Question:
    """One subcommand of ``diagnose``.

    Attributes:
        asks: what, in a sentence.
        options: its dataclass; it has a field ``out``.
        function: ``module:function`` of ``trainer.diagnostics``, from options to a ``Diagnosis``.
    """

    asks: str
    options: type
    function: str


QUESTIONS = {
    "information": Question(
        "What can be read of class, scene or actor from the features, of moving and of still clips?",
        InformationConfig,
        "information_command:diagnose_information",
    ),
    "static-dynamic": Question(
        "How much of each layer follows what moves, and how much what stands?",
        StaticDynamicConfig,
        "static_dynamic_command:diagnose_static_dynamic",
    ),
    "look": Question(
        "Where and when is the evidence, and how much of it is on the actor?", LookConfig, "look_command:diagnose_look"
    ),
    "scene-bias": Question(
        "How far do still frames give the class away?", SceneBiasConfig, "scene_bias:diagnose_scene_bias"
    ),
    "hat": Question("Does the model read the human or the background (HAT)?", HatConfig, "hat_command:diagnose_hat"),
}


def diagnose(arguments: list[str]) -> int:
    """``unstill diagnose QUESTION ...``."""
    if not arguments or arguments[0] in ("-h", "--help"):
        _print_questions()
        return 0
    name, *rest = arguments
    if name not in QUESTIONS:
        raise InputError(unknown("question", name, QUESTIONS, "unstill diagnose"))
    question = QUESTIONS[name]
    options = parse(question.options, prog=f"unstill diagnose {name}", args=rest)
    if options.out is not None:
        check_folder(options.out)
    # after the options: --help need not wait for torch
    from ..diagnostics.presentation import show, write
    from ..evaluation.facts import made_now

    module, _, function = question.function.partition(":")
    diagnosis = getattr(importlib.import_module(f"unstill.trainer.diagnostics.{module}"), function)(options)
    device = options.device if isinstance(options, SceneBiasConfig) else options.run.device
    diagnosis = replace(diagnosis, facts={**diagnosis.facts, "made": made_now(str(device))})
    show(diagnosis)
    if options.out is not None:
        print(f"written: {', '.join(map(str, write(diagnosis, options.out)))}")
    return 0


def _print_questions() -> None:
    console = Console()
    console.print("usage: unstill diagnose QUESTION ... [--option value ...]\n", markup=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    for name, question in QUESTIONS.items():
        table.add_row(name, question.asks)
    console.print(table)
    console.print(
        "\nunstill diagnose QUESTION --help shows its options. What each shows and cannot show: docs/diagnose.md."
    )


def scene_labels(options: SceneLabelConfig) -> int:
    """``unstill scene-labels``."""
    from ..diagnostics.scene_bias import write_scene_labels

    path = write_scene_labels(options)
    print(f"{path}: for SDN, --method.scenes {path}")
    return 0


def still_bank(options: StillBankConfig) -> int:
    """``unstill still-bank``."""
    from ..diagnostics.still_bank import build_still_bank

    path = build_still_bank(options)
    print(f"{path}: for StillMix, --augmentation.bank {path}")
    return 0


def recast_clips(options: RecastClipsConfig) -> int:
    """``unstill recast-clips``."""
    from ..diagnostics.recast_clips import write_recast_clips

    path = write_recast_clips(options)
    for name, facts in json.loads(path.read_text()).items():
        before, after = (f"{100 * facts[key]:.0f} %" for key in ("still_as_filmed", "still_after"))
        print(printable(f"{name}: {before} of the picture stands still, {after} without the camera's motion; "), end="")
        print(f"recast: {facts['recast']}")
    print(f"{path.parent}: clips, and {path.parent / 'sheet.png'}")
    return 0
