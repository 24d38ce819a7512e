"""One page of every kind, of made-up data with what is hard to lay out: many classes and measures, long names."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from unstill.bench.report.page import render_results
from unstill.pipeline.conversion.output import LocalOutput
from unstill.pipeline.conversion.stats import STATS_NAME, write_stats
from unstill.pipeline.shards.index import SampleIndex
from unstill.pipeline.shards.quarantine import Failure
from unstill.trainer.demo.report import GradCamExample, ReportData, SheetRow, render
from unstill.trainer.diagnostics.presentation import Bar, Chart, Diagnosis, Strip, Table
from unstill.trainer.diagnostics.presentation import html as diagnosis_html
from unstill.trainer.evaluation.files import across_seeds, changes_from_first
from unstill.trainer.evaluation.files import html as evaluation_html
from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.protocols import Share
from unstill.trainer.evaluation.scorecard import scorecard

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(0)


def report_data() -> ReportData:
    """A demonstration of two models and four classes."""
    clip = RNG.integers(0, 256, (8, 16, 16, 3), np.uint8)
    measures = ("iid", "scuba", "scufo", "scufo_least", "scufo_probe", "contrasted", "conflfg", "anti", "shaken_scufo")
    results = {
        model: {m: Share(first + n, max(first + n - 3, 0), first + n + 4, 512, 512) for n, m in enumerate(measures)}
        for model, first in (("cross entropy", 20.125), ("ALBAR", 60.0625))
    }
    classes = ("left", "right", "up", "<b>down")
    return ReportData(
        verdict="Removed 1 < 2 & reduced.",
        results=results,
        measures=measures,
        classes=8,
        metrics={
            "cross entropy": [{"epoch": 0.5, "top1": 0.2}, {"epoch": 1.0, "top1": None}, {"epoch": 1.5, "top1": 0.9}],
            "ALBAR": [{"epoch": 0.5, "top1": 0.1, "static_top1": 0.5, "gp": 0.01}],
        },
        sheet=[SheetRow(name, "What it is.", dict.fromkeys(classes, clip)) for name in ("Training", "IID", "SCUBA")],
        examples=[
            GradCamExample(
                "a clip",
                clip,
                RNG.random((8, 16, 16)),
                {"cross entropy": np.zeros((8, 16, 16)), "ALBAR": RNG.random((8, 16, 16))},
                {"cross entropy": "left", "ALBAR": "rot_cw"},
            )
        ],
        energy={"cross entropy": 20.0, "ALBAR": 41.0},
        area=14.0,
        seconds={"render": 12.0, "train_albar": 100.0},
        facts=[("seed", "0"), ("torch", "2.x"), ("machine", "2 cores")],
        configs={"ALBAR": '{"method": "<script>", "out": "' + "a_long_folder/" * 20 + '"}'},
    )


def diagnosis() -> Diagnosis:
    """Bars over percent and over a ratio, a table of many columns, strips of frames."""
    models = ("hmdb51_albar_stillmix_seed0", "hmdb51_cross_entropy")
    bars = [
        Bar(f"SCUFO, {kind}", model, value, value - 4, value + 4)
        for kind in ("places", "stripes")
        for model, value in zip(models, (12.5, 71.0), strict=True)
    ]
    columns = ("model", "layer", *(f"measure {n}" for n in range(12)))
    rows = [
        (model, layer, *(f"{n}.0 [{n}.1, {n}.2]" for n in range(12))) for model in models for layer in ("stem", "head")
    ]
    frames = RNG.integers(0, 256, (112, 112 * 8, 3), np.uint8)
    return Diagnosis(
        name="look",
        title="Where and when is the evidence?",
        shows=("Maps say where a logit comes from, not what would happen without it.",),
        content={},
        charts=[
            Chart("Accuracy, percent", bars, 100.0, "How to read it.", reference=(12.5, "guessing")),
            Chart("Scores", [Bar("layer1", model, 0.4) for model in models], 1.0),
        ],
        tables=[Table("Scores", columns, rows, "A note.", text=("layer",))],
        strips=[
            Strip(
                "brush_hair: a_video_with_a_long_name_000123",
                [("the clip", "", frames), (models[0], "says wave", frames)],
            )
        ],
        facts={"data": "data/hmdb51/" + "a_long_folder/" * 12, "seed": "0"},
    )


def evaluation() -> str:
    """Three models, two of them seeds of one run, on all derived sets of 24 classes."""
    classes = tuple(
        f"{verb} {thing}"
        for verb in ("brush", "throw", "swing", "ride")
        for thing in ("hair", "a baseball", "a horse", "a bike", "a sword", "the floor")
    )
    sets = (
        "iid",
        "scuba.places",
        "scufo.places",
        "scuba.stripes",
        "scufo.stripes",
        "conflfg",
        "reversed",
        "shuffled",
        "static_iid",
        "mine",
    )
    keys = tuple(f"video{i:03}__{k}" for i in range(24) for k in range(2))
    label = np.arange(48) % 24

    def predictions(strength: float, name: str) -> Predictions:
        logits = RNG.normal(size=(48, 24)) + strength * np.eye(24)[label]
        return Predictions(keys, label, logits, classes, name)

    cards = {
        model: scorecard({name: predictions(strength, name) for name in sets})
        for model, strength in (("hmdb51_cross_entropy", 2.0), ("hmdb51_albar_seed0", 3.0), ("hmdb51_albar_seed1", 3.1))
    }
    facts = {
        **{
            f"model {name}": f"runs/{name}, step 1200 (latest); ALBAR, swin3d_t, fp32; trained on data/train"
            for name in cards
        },
        "set iid": "data/hmdb51/test_01, 48 videos, 0123456789ab",
        "guessing": "4.167 % of 24 classes",
        "views": "4 x 3, spread evenly",
        "made": "unstill 0.1.0, 2026-01-02T03:04:05+00:00, on cpu",
    }
    return evaluation_html(cards, across_seeds(cards), facts, changes_from_first(cards))


def stats(folder: Path) -> Path:
    """The page of the small committed dataset, with failures that it did not have."""
    source = ROOT / "tests/pipeline/shards/version_1"
    dataset = json.loads((source / "dataset.json").read_text())
    names = [
        f"brush hair and 17 other things/a_video_of_a_name_that_has_no_place_to_break_{n:04}.avi" for n in range(30)
    ]
    dataset |= {
        "planned": 34,
        "quarantined": 30,
        "reasons": {"unreadable": 29, "truncated": 1},
        "notes": {"halved the frame rate": 3},
        "same_content": {"groups": 1, "in_several_classes": [names[:2]]},
    }
    failures = [Failure(name, name, "unreadable", "no demuxer makes sense of it") for name in names]
    output = LocalOutput(folder)
    for shard in sorted((source / "shards").glob("*.tar")):
        (output.shards / shard.name).write_bytes(shard.read_bytes())
    write_stats(output, dataset, SampleIndex.load(source / "index.safetensors"), failures)
    return folder / STATS_NAME


KINDS: dict[str, Callable[[Path], str]] = {
    "demonstration": lambda folder: render(report_data()),
    "evaluation": lambda folder: evaluation(),
    "diagnosis": lambda folder: diagnosis_html(diagnosis()),
    "benchmarks": lambda folder: render_results(ROOT / "bench/results"),
    "stats": lambda folder: stats(folder / "dataset").read_text(),
}


def write_page(kind: str, folder: Path) -> Path:
    """Write one page into a folder; returns its path."""
    path = folder / f"{kind}.html"
    path.write_text(KINDS[kind](folder))
    return path
