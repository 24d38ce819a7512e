"""``unstill demo``: from rendered videos to a debiased model, a table and a report.

    render -> convert -> verify -> train_baseline -> train_albar -> evaluate -> export -> report

Everything goes through the same code as real data: video files, shards, the loader, the trainer, the evaluator. A stage
that is done is not repeated, so the command can be stopped and given again.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from unstill import __version__

from ...pipeline.atomic_files import write_atomic
from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.conversion.verify import verify
from ...pipeline.errors import InputError
from ...pipeline.loading.device import resolve_device
from ..config import TrainConfig, to_dict
from ..evaluation.config import EvaluateOptions
from ..evaluation.evaluate import evaluate
from ..evaluation.facts import describe_dataset, describe_views, set_paths
from ..evaluation.measures import MEASURES
from ..evaluation.protocols import Share
from ..evaluation.subject import load_subject
from ..inference.card import Measured
from ..inference.config import ExportConfig
from ..inference.export import export
from ..train import train
from . import report
from .exhibits import gather
from .motions.files import write_motions
from .motions.world import SHARD_QUALITY, MotionsConfig
from .settings import COLUMNS, MODELS, SPLITS, DemoConfig, demo_sets, train_configs
from .stages import Stages
from .verdict import verdict

STAGES = ("render", "convert", "verify", "train_baseline", "train_albar", "evaluate", "export", "report")


def demo(config: DemoConfig) -> dict:
    """Run the demonstration, or what is left of it.

    Returns:
        The content of ``results.json``: the measures of "baseline" and "albar" in percent, "seed", "seconds" by stage.

    Raises:
        InputError: something the user can correct; the message says what.
    """
    config = replace(config, device=resolve_device(config.device))  # before the videos are rendered
    out = config.out
    stages = Stages(out, STAGES, config.fresh)
    motions = MotionsConfig(
        out=out / "videos", seed=config.seed, train=config.train, test=config.test, workers=config.workers
    )
    settings = {k: v for k, v in asdict(motions).items() if k not in ("out", "workers")} | {"version": __version__}
    stages.run("render", settings, [motions.out], lambda: write_motions(motions))

    shards = {split: _conversion(config, split) for split in SPLITS}
    recipe = asdict(shards["train"].recipe())
    stages.run("convert", recipe, [out / "shards"], lambda: _convert(shards), ["render"])
    stages.run("verify", {}, [], lambda: _verify(shards), ["convert"])

    runs = train_configs(config)
    for name, run in runs.items():
        plain = {k: v for k, v in to_dict(run).items() if k not in ("data", "out", "loader", "log", "checkpoint")}
        stages.run(f"train_{name}", plain, [run.out], lambda run=run: _train(run), ["convert"])

    scored = {"columns": list(COLUMNS), "seed": config.seed}
    products = [out / "evaluation.json", out / "predictions"]
    trained = [f"train_{name}" for name in runs]
    stages.run("evaluate", scored, products, lambda: _evaluate(config), ["render", *trained])
    shares = read_shares(out / "evaluation.json")
    stages.run("export", {}, [out / "models"], lambda: _export(config, shares), ["evaluate"])
    stages.run("report", {}, [out / "report.html"], lambda: _report(config, shares, stages.seconds), ["evaluate"])

    results = {name: {column: round(found[column].value, 2) for column in COLUMNS} for name, found in shares.items()}
    results |= {"seed": config.seed, "seconds": stages.seconds | {"total": round(sum(stages.seconds.values()), 2)}}
    write_atomic(out / "results.json", json.dumps(results, indent=1).encode())
    show(results, shares, out)
    return results


def show(results: dict, shares: Mapping[str, Mapping[str, Share]], out: Path, console: Console | None = None) -> None:
    """Print the table, the verdict and where the report is."""
    console = console or Console()
    table = Table(title=f"Accuracy in percent, seed {results['seed']}", title_justify="left")
    table.add_column("measure", no_wrap=True)
    for name in MODELS.values():
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("what it asks", overflow="fold")
    for column in COLUMNS:
        measure = MEASURES[column]
        values = [shares[name][column].value for name in MODELS]  # not the rounded ones: 93.547 is 93.5, not 93.6
        best = {"higher": max(values), "lower": min(values)}.get(measure.better)
        cells = [f"[bold]{v:.1f}[/]" if v == best else f"{v:.1f}" for v in values]
        arrow = {"higher": " ↑", "lower": " ↓"}.get(measure.better, "")
        note = " One-sided: a low value proves nothing." if measure.one_sided else ""
        table.add_row(f"{measure.title}{arrow}", *cells, measure.meaning + note)
    console.print(table)
    console.print(verdict(results))
    minutes, seconds = divmod(round(results["seconds"]["total"]), 60)
    console.print(f"{minutes} min {seconds:02d} s. Report: {out / 'report.html'}; numbers: {out / 'results.json'}")
    console.print(
        f"Models with their cards: {out / 'models'}; next: unstill predict VIDEO --model {out / 'models/albar'}"
    )


def read_shares(path: Path) -> dict[str, dict[str, Share]]:
    """Model -> measure -> share, from evaluation.json."""
    found = json.loads(path.read_text())
    return {name: {m: Share(**s) for m, s in entry["shares"].items()} for name, entry in found.items()}


def _conversion(config: DemoConfig, split: str) -> ConvertConfig:
    codec = "vp9" if config.device == "cpu" else "h264"  # VP9 is what DALI decodes on a CPU
    return ConvertConfig(
        source=config.out / "videos" / split,
        out=config.out / "shards" / split,
        codec=codec,
        quality=SHARD_QUALITY.get(codec),
        short_side=MotionsConfig().size,
        samples_per_shard=256,
        workers=config.workers,
        classes=None if split == "train" else config.out / "shards" / "train" / "dataset.json",
    )


def _convert(conversions: dict[str, ConvertConfig]) -> None:
    for conversion in conversions.values():
        report = convert(conversion)
        if report.quarantined:
            raise InputError(
                f"{conversion.out}: {report.quarantined} rendered videos were refused ({report.reasons}); see "
                f"{Path(conversion.out) / 'quarantine.csv'}, and give --fresh if the disk was full"
            )


def _verify(conversions: dict[str, ConvertConfig]) -> None:
    for conversion in conversions.values():
        faults = verify(conversion.out, workers=conversion.workers)
        if faults:
            raise InputError(
                f"{conversion.out}: {len(faults)} faults, first {faults[0]}; give --fresh to make it again"
            )


def _train(run: TrainConfig) -> None:
    train(run)


def _evaluate(config: DemoConfig) -> None:
    subjects = [load_subject(run.out, name) for name, run in train_configs(config).items()]
    found = evaluate(subjects, demo_sets(config), EvaluateOptions(device=config.device, seed=config.seed))
    folder = config.out / "predictions"
    folder.mkdir(exist_ok=True)
    for name, result in found.items():
        for test, predictions in result.predictions.items():
            predictions.save(folder / f"{name}.{test}.npz")
    plain = {
        name: {
            "shares": {measure: asdict(share) for measure, share in result.card.shares.items()},
            "per_class": result.card.per_class,
        }
        for name, result in found.items()
    }
    write_atomic(config.out / "evaluation.json", json.dumps(plain, indent=1).encode())


def _export(config: DemoConfig, shares: dict[str, dict[str, Share]]) -> None:
    """Both models as others can use them: weights, configuration, classes and model card."""
    shutil.rmtree(config.out / "models", ignore_errors=True)
    options = EvaluateOptions(device=config.device, seed=config.seed)
    facts = {f"set {name}": describe_dataset(path) for name, path in set_paths(demo_sets(config)).items()}
    facts |= {"views": describe_views(options), "seed": str(config.seed)}
    for name, run in train_configs(config).items():
        folder = config.out / "models" / name
        export(ExportConfig(run=run.out, out=folder, formats=(), card=True), Measured(shares[name], facts))


def _report(config: DemoConfig, shares: dict[str, dict[str, Share]], seconds: dict[str, float]) -> None:
    report.write(gather(config, shares, dict(seconds)), config.out / "report.html")
