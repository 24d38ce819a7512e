"""The command line: ``unstill COMMAND ...``.

Every command is a function of one frozen dataclass of options; tyro turns the dataclass into flags, and the text below
each of its fields into ``--help``. The options are read before the function is imported, and their modules do not need
torch: ``--help`` and a mistyped option answer in under a second.
"""

import importlib
import logging
import sys
import tempfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

from unstill import __version__

from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from .help_texts import parse
from .leaving import leave_with_code_of
from .suggestions import unknown


@dataclass(frozen=True)
class Command:
    """One command.

    Attributes:
        summary: what it does, for the list of commands.
        function: ``module:function`` below ``unstill``; it returns the exit code.
        options: ``module:dataclass`` below ``unstill``, what the function takes; without it the
            function reads the arguments itself.
        pairs: its flags that take names and values in turn, for the message where a name was forgotten.
    """

    summary: str
    function: str
    options: str | None = None
    pairs: tuple[str, ...] = ()

    def run(self, name: str, arguments: list[str]) -> int:
        """Parse ``arguments`` and call the function; returns the exit code."""
        given = arguments
        refuse_odd_pairs(arguments, self.pairs)
        if self.options is not None:
            given = parse(_load(self.options), prog=f"unstill {name}", args=arguments)
        return _load(self.function)(given)


COMMANDS = {
    "demo": Command(
        "From rendered videos to a debiased model, a table and a report.",
        "trainer.cli.demo:run",
        "trainer.demo.settings:DemoConfig",
    ),
    "convert": Command(
        "Turn a folder of videos into training shards.",
        "trainer.cli.data:convert",
        "pipeline.conversion.convert:ConvertConfig",
    ),
    "audit": Command(
        "Report what a folder of videos contains, before converting it.",
        "trainer.cli.data:audit",
        "pipeline.conversion.audit:AuditConfig",
    ),
    "verify": Command(
        "Check converted shards, byte by byte and frame by frame.",
        "trainer.cli.data:verify",
        "trainer.cli.data:VerifyOptions",
    ),
    "ood": Command(
        "Build SCUBA, Confl-FG and HAT test videos from videos and masks, or check the masks.", "trainer.cli.ood:ood"
    ),
    "train": Command("Train a model by a recipe.", "trainer.cli.train:run"),
    "evaluate": Command(
        "Measure accuracy and static bias of trained models.",
        "trainer.cli.evaluate:run",
        "trainer.evaluation.config:EvaluateCommand",
        pairs=("--scuba", "--others", "--mirror"),
    ),
    "diagnose": Command(
        "Ask what trained models read: layers, features, evidence, scenes, humans.", "trainer.cli.diagnostics:diagnose"
    ),
    "still-bank": Command(
        "Collect the still pictures that StillMix blends into clips.",
        "trainer.cli.diagnostics:still_bank",
        "trainer.diagnostics.config:StillBankConfig",
    ),
    "scene-labels": Command(
        "Write the scene of every video, for SDN.",
        "trainer.cli.diagnostics:scene_labels",
        "trainer.diagnostics.config:SceneLabelConfig",
    ),
    "recast-clips": Command(
        "Show what Recast makes of videos, and test a network with it.",
        "trainer.cli.diagnostics:recast_clips",
        "trainer.diagnostics.config:RecastClipsConfig",
    ),
    "export": Command(
        "Write a trained model as safetensors, torch.export and ONNX.",
        "trainer.cli.inference:export",
        "trainer.inference.config:ExportConfig",
    ),
    "predict": Command(
        "Name what happens in single videos, with an exported model.",
        "trainer.cli.inference:predict",
        "trainer.inference.config:PredictConfig",
    ),
    "features": Command(
        "Write a trained network's features of long videos, window by window.",
        "trainer.cli.downstream:features",
        "trainer.downstream.features.config:FeaturesConfig",
    ),
    "anomaly": Command(
        "Find anomalies in long videos with a head on a network's features.",
        "trainer.cli.downstream:anomaly",
        "trainer.downstream.anomaly.config:AnomalyConfig",
    ),
    "localise": Command(
        "Find actions in long videos with a head on a network's features.",
        "trainer.cli.downstream:localise",
        "trainer.downstream.localisation.config:LocaliseConfig",
    ),
    "detect": Command(
        "Say who does what where, with a linear layer on a network's features of boxes.", "trainer.cli.detect:detect"
    ),
    "transfer": Command(
        "Measure an encoder on other data sets: linear probe, fine-tuned runs, mean of splits.",
        "trainer.cli.transfer:transfer",
        "trainer.downstream.transfer.config:TransferConfig",
    ),
    # named here, never imported by the trainer: bench -> trainer is the only direction
    "bench": Command("Measure this machine: every part next to its peers and its limit.", "bench.cli:main"),
    "completion": Command("Print what bash, zsh or fish need to complete commands.", "trainer.cli.completion:run"),
}
SECTIONS = {  # of the list of commands
    "Start": ("demo",),
    "Data": ("convert", "audit", "verify", "ood"),
    "Training": ("train",),
    "Evaluation": ("evaluate", "diagnose"),
    "Use": ("export", "predict", "transfer"),
    "Long videos": ("features", "anomaly", "localise", "detect"),
    "What single methods need": ("still-bank", "scene-labels", "recast-clips"),
    "This machine": ("bench", "completion"),
}

MOVED = {"scene-bias": ("diagnose", "scene-bias"), "hat": ("diagnose", "hat")}  # since 0.1.0


def main() -> None:
    """Entry point of the console script ``unstill``."""
    leave_with_code_of(lambda: run(sys.argv[1:]))


def run(arguments: list[str]) -> int:
    """Run one command line; ``--debug`` anywhere in it lets an unexpected exception through, with its traceback.

    Returns:
        The exit code: 0 done, 1 faults were found, 2 something the user can correct, 70 an unexpected exception (one
        line; the traceback goes to a file that it names), 75 preempted and saved, 130 interrupted.
    """
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        _print_commands()
        return 0
    if arguments[0] in ("-V", "--version"):
        print(f"unstill {__version__}")
        return 0
    if arguments[0] in MOVED:
        new = MOVED[arguments[0]]
        errors.print(f"unstill: {arguments[0]} is now `unstill {' '.join(new)}`")
        arguments = [*new, *arguments[1:]]
    name, *rest = arguments
    if name not in COMMANDS:
        errors.print(f"unstill: {unknown('command', name, COMMANDS, 'unstill --help')}")
        return 2
    logging.basicConfig(format="%(message)s")
    logging.getLogger("unstill").setLevel(logging.INFO)  # other libraries say only what went wrong
    try:
        return COMMANDS[name].run(name, rest)
    except InputError as error:
        errors.print(f"unstill {name}: {printable(str(error))}")
        return 2
    except KeyboardInterrupt as interrupt:
        errors.print(f"unstill {name}: interrupted{f'; {interrupt}' if str(interrupt) else ''}")
        return 130
    except BrokenPipeError:  # the reader has seen enough, as in `unstill train RECIPE --help | head`
        sys.stdout = None  # nothing is left to flush it to
        return 0
    except Exception as error:
        if debug:
            raise
        errors.print(f"unstill {name}: {_unexpected(error)}")
        return 70


def refuse_odd_pairs(arguments: list[str], flags: tuple[str, ...]) -> None:
    """Refuse a flag that takes names and values in turn, and has an odd number of them.

    Raises:
        InputError: names the flag, and what it was given.
    """
    for flag in (flag for flag in flags if flag in arguments):
        after = arguments[arguments.index(flag) + 1 :]
        given = after[: next((n for n, word in enumerate(after) if word.startswith("--")), len(after))]
        if len(given) % 2:
            raise InputError(
                f"{flag} {' '.join(given)}: expected pairs, {flag} NAME VALUE; a name or a value is missing"
            )


def _unexpected(error: Exception) -> str:
    """One line about an unexpected exception; its traceback goes to a new file in the temporary folder."""
    text = printable(" ".join(str(error).split()))[:300]
    with tempfile.NamedTemporaryFile(
        "w", prefix="unstill-", suffix=".txt", delete=False, errors="backslashreplace"
    ) as file:
        traceback.print_exception(error, file=file)
    return f"unexpected {type(error).__name__}: {text or 'without a message'}; its traceback is in {file.name}"


def _load(path: str) -> Callable:
    module, name = path.split(":")
    return getattr(importlib.import_module(f"unstill.{module}"), name)


def _print_commands() -> None:
    console = Console()
    console.print("unstill: train video models that recognise motion, not the background.\n")
    for title, names in SECTIONS.items():
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 0), title=title, title_justify="left")
        table.title_style = "bold"
        table.add_column(width=len("unstill ") + max(map(len, COMMANDS)))
        for name in names:
            table.add_row(f"unstill {name}", COMMANDS[name].summary)
        console.print(table)
        console.print()
    console.print("unstill COMMAND --help shows the options of one command; --debug shows tracebacks.")
