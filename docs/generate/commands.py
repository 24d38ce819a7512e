"""The reference of commands and recipes, from the same dataclasses as ``--help``."""

import argparse
import dataclasses
import inspect
import re
import typing
import warnings

import tyro
from blocks import table

from unstill.bench import suites
from unstill.pipeline.ood.build import OodConfig
from unstill.pipeline.ood.mask_check import MaskCheckConfig
from unstill.trainer.augmentations import Augmentation
from unstill.trainer.cli.diagnostics import QUESTIONS
from unstill.trainer.cli.main import COMMANDS, _load
from unstill.trainer.config import TrainConfig
from unstill.trainer.downstream.detection.config import DetectConfig, ScoreConfig
from unstill.trainer.methods import Method
from unstill.trainer.recipes import RECIPES

TRAIN_DEFAULTS = "own_small"  # the recipe whose values the page of `unstill train` shows
EXIT_CODES = {
    0: "done",
    1: "faults were found",
    2: "something to correct in the command or its files",
    70: "an unexpected exception; its traceback is in a file that the message names, `--debug` shows it",
    75: "stopped and saved; the same command continues",
    130: "interrupted",
}
NOTE = "<!-- Written by `python docs/generate` from the options in the code; do not edit. -->"


def page() -> str:
    """docs/reference/commands.md."""
    parts = [
        NOTE,
        "# Commands",
        "Every option of every command, as `unstill COMMAND --help` shows it. A list takes its values one after "
        "another; `--no-...` switches off what `--...` switches on.",
        table(["exit code", "meaning"], [[f"{code}", words] for code, words in EXIT_CODES.items()], 2),
        table(["command", "what it does"], [[_link(f"unstill {name}"), c.summary] for name, c in COMMANDS.items()], 2),
    ]
    for name, command in COMMANDS.items():
        if name in _OWN:
            parts += _OWN[name]()
        elif command.options is None:
            parts += [f"## unstill {name}", f"{command.summary} `unstill {name} --help`."]
        else:
            parts += _command(f"unstill {name}", command.summary, _load(command.options))
    return "\n\n".join(parts) + "\n"


def _link(title: str) -> str:
    return f"[`{title}`](#{title.replace(' ', '-')})"


def _command(title: str, summary: str, options: typing.Any, default: typing.Any = None, level: int = 2) -> list[str]:
    return [f"{'#' * level} {title}", summary, *_tables(title, options, default)]


def _train() -> list[str]:
    augmentations = [kind for kind in typing.get_args(Augmentation) if dataclasses.is_dataclass(kind)]
    methods = [kind for kind in typing.get_args(Method) if dataclasses.is_dataclass(kind)]
    recipe = RECIPES[TRAIN_DEFAULTS]()
    parts = _command("unstill train", COMMANDS["train"].summary, tyro.conf.AvoidSubcommands[TrainConfig], recipe)
    parts[2:2] = [
        "`unstill train RECIPE [--option value ...]`; [all recipes](recipes.md). The recipe chooses method and "
        f"augmentation; defaults here are those of `{TRAIN_DEFAULTS}`. `--print-config` prints the configuration and "
        "ends."
    ]
    parts = [part for part in parts if not part.startswith(("**method", "**augmentation"))]
    for prefix, kinds in (("method", methods), ("augmentation", augmentations)):
        for kind in kinds:
            words = [
                f"**{prefix} {kind.__name__}.** {_first(kind)}",
                *_tables("", kind, None, f"{prefix}.", one_table=True),
            ]
            parts += words
    return parts


def _ood() -> list[str]:
    build = "Cut the people out of test videos and put them before other backgrounds: SCUBA, Confl-FG, HAT."
    check = "Measure the masks, and list the videos to look at."
    return [
        *("## unstill ood", COMMANDS["ood"].summary),
        *_command("unstill ood build", build, OodConfig, level=3),
        *_command("unstill ood check", check, MaskCheckConfig, level=3),
    ]


def _detect() -> list[str]:
    fit = "A linear layer on frozen features of boxes; frame-mAP and video-mAP of each model."
    score = "The same measures of any detector's boxes."
    return [
        *("## unstill detect", COMMANDS["detect"].summary),
        *_command("unstill detect fit", fit, DetectConfig, level=3),
        *_command("unstill detect score", score, ScoreConfig, level=3),
    ]


def _diagnose() -> list[str]:
    parts = ["## unstill diagnose", COMMANDS["diagnose"].summary + " What each can show: [diagnose](../diagnose.md)."]
    for name, question in QUESTIONS.items():
        parts += _command(f"unstill diagnose {name}", question.asks, question.options, level=3)
    return parts


def _bench() -> list[str]:
    rows = [[f"`{name}`", _cell(suites.summary(name))] for name in suites.names()]
    return [
        "## unstill bench",
        f"{COMMANDS['bench'].summary} `unstill bench NAME`, `report` (one page of all result files) or `all`.",
        table(["NAME", "what it measures"], rows, 2),
    ]


_OWN = {"train": _train, "ood": _ood, "detect": _detect, "diagnose": _diagnose, "bench": _bench}


def _tables(
    title: str, options: typing.Any, default: typing.Any, prefix: str = "", one_table: bool = False
) -> list[str]:
    """The usage line, then one table for each group of options."""
    with warnings.catch_warnings():
        # tyro would rather not show argparse's form; there is no other structured one
        warnings.simplefilter("ignore", DeprecationWarning)
        parser = tyro.extras.get_parser(options, **({} if default is None else {"default": default}))
    parts, positional = [], []
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if not actions:
            continue
        named = [action for action in actions if action.option_strings]
        positional += [action for action in actions if not action.option_strings]
        rows = [_row(action, prefix) for action in actions]
        heading = (group.title or "").removesuffix(" options")
        if heading not in ("options", "positional arguments") and not one_table:
            parts.append(f"**{heading}.** {_cell(group.description or '')}")
        parts.append(table(["option" if named else "argument", "default", "meaning"], rows, 3))
    words = " ".join(_metavar(action) for action in positional)
    return [*([f"`{title} {words} [--option value ...]`"] if positional else []), *parts]


def _row(action: argparse.Action, prefix: str) -> list[str]:
    words = (action.help or "").replace("%%", "%")  # as argparse has it
    text, _, default = words.rpartition(" (default: ")
    if not text:
        text, default = words.removesuffix(" (required)"), ""
    flags = [f"--{prefix}{flag.removeprefix('--')}" for flag in action.option_strings]
    value = "" if action.nargs == 0 or not flags else f" {_metavar(action)}"
    shown = f"`{flags[0]}{value}`" if flags else f"`{_metavar(action)}`"
    if len(flags) > 1 and flags[1].rpartition(".")[2].startswith(("no-", "--no-")):
        default = {"False": "off", "True": "on"}.get(default.removesuffix(")"), default)
    default = default.removesuffix(")")
    return [_code(shown), f"`{_code(default)}`" if default not in ("", "None") else "", _cell(text)]


def _metavar(action: argparse.Action) -> str:
    name = action.metavar if isinstance(action.metavar, str) else str(action.dest)
    repeated = re.match(r"\[?\[(.+?) \[\1 \.\.\.\]\]\]?$", name)
    name = f"{repeated[1]} ..." if repeated else name
    return name.replace("{None}|", "").strip("{}").replace(",", "|") if "{" in name else name


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("``", "`").replace("|", "\\|").replace("<", "&lt;")


def _code(text: str) -> str:
    return text.replace("|", "\\|")


def _first(kind: type) -> str:
    return _cell((inspect.getdoc(kind) or "").partition("\n\n")[0])


def recipes_page() -> str:
    """docs/reference/recipes.md."""
    rows = []
    for name, recipe in RECIPES.items():
        config = recipe()
        clip = f"{config.clip.frames} x {config.clip.size}, stride {config.clip.stride}"
        what = [type(config.method).__name__, *([type(config.augmentation).__name__] if config.augmentation else [])]
        size = [f"{config.batch_size}", f"{config.epochs:g}"]
        rows.append([f"`{name}`", f"`{config.model.name}`", clip, " + ".join(what), *size, _first_line(recipe)])
    heads = ["recipe", "network", "clip", "method", "batch", "epochs", "what it is"]
    return (
        "\n\n".join(
            [
                NOTE,
                "# Recipes",
                "`unstill train RECIPE`; every value can be changed by an [option](commands.md#unstill-train).",
                table(heads, rows, 7),
            ]
        )
        + "\n"
    )


def _first_line(recipe: typing.Callable) -> str:
    return _cell((inspect.getdoc(recipe) or "").partition("\n\n")[0])
