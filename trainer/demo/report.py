"""The demonstration's report: one HTML file that needs no other file, no network and no script.

    report.write(data, path)

``ReportData`` is plain values and arrays; everything that is drawn is made here, the words and the layout are in
``report.html.j2``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from ...pipeline.atomic_files import write_atomic
from ...pipeline.pages import template
from ..diagnostics.clip_strips import data_uri, outline, overlay, strip
from ..evaluation.measures import MEASURES
from ..evaluation.protocols import Share
from .line_chart import Line, line_chart, smooth

TILE = 96  # side of the heat pictures in pixels


@dataclass(frozen=True)
class SheetRow:
    """One row of the contact sheet.

    Attributes:
        name: of the set.
        meaning: what is special about it, one sentence.
        clips: class name -> uint8 (T,H,W,3), one clip for each column.
    """

    name: str
    meaning: str
    clips: dict[str, np.ndarray]


@dataclass(frozen=True)
class GradCamExample:
    """Where two models find their evidence in one clip.

    Attributes:
        title: what the clip is.
        frames: uint8 (T,H,W,3).
        mask: (T,h,w), share of each pixel that the moving actor covers, in [0, 1].
        heat: model -> (T,H,W).
        predicted: model -> name of the class that it predicts.
    """

    title: str
    frames: np.ndarray
    mask: np.ndarray
    heat: dict[str, np.ndarray]
    predicted: dict[str, str]


@dataclass(frozen=True)
class ReportData:
    """All that the report shows.

    Attributes:
        verdict: the sentence on what was removed and what was only reduced.
        results: model -> measure -> share; the first model is the one that others are compared with.
        measures: which measures the table has, in order.
        classes: number of classes.
        metrics: model -> the records of its metrics.jsonl.
        sheet: the contact sheet.
        examples: Grad-CAM examples.
        energy: model -> mean share of the heat on the actor, in percent.
        area: the actor's mean share of the picture, in percent: what an even map would give.
        seconds: stage -> how long it took.
        facts: (name, value) of the set-up and the versions, for the end of the page.
        configs: name -> resolved configuration as text.
    """

    verdict: str
    results: dict[str, dict[str, Share]]
    measures: Sequence[str]
    classes: int
    metrics: dict[str, list[dict]]
    sheet: Sequence[SheetRow]
    examples: Sequence[GradCamExample]
    energy: dict[str, float]
    area: float
    seconds: dict[str, float]
    facts: Sequence[tuple[str, str]]
    configs: dict[str, str]

    @property
    def chance(self) -> float:
        """Accuracy of guessing, in percent."""
        return 100 / self.classes


# (title, explanation, [(metric, dashed?)], lowest y, what the dashed reference is, reference)
_CHARTS = (
    ("Accuracy on moving clips", "in training, percent", "top1", 100.0, 0.0, None),
    ("Accuracy on still clips", "in training, percent; dashed: chance", "static_top1", 100.0, 0.0, "chance"),
    ("Undecided about still clips", "entropy over its maximum, percent", "static_entropy_share", 100.0, 0.0, None),
    ("Gradient penalty", "norm of the logits' gradient by the still clip", "gp", 1.0, 0.0, None),
)


def write(data: ReportData, path: Path) -> None:
    """Write the page to ``path``, atomically."""
    write_atomic(path, render(data).encode())


def render(data: ReportData) -> str:
    """The page as text."""
    models = list(data.results)
    pictures: list[str] = []  # data URIs; the page's style sheet names each once, however often it is shown

    def picture(image: np.ndarray, quality: int = 82) -> int:
        pictures.append(data_uri(image, quality))
        return len(pictures) - 1

    sheet = [
        {"name": row.name, "meaning": row.meaning, "clips": [(c, picture(strip(f))) for c, f in row.clips.items()]}
        for row in data.sheet
    ]
    examples = [
        {
            "title": example.title,
            "clip": picture(strip(outline(_enlarge(example.frames), example.mask))),
            "models": [
                (m, picture(strip(overlay(example.frames, example.heat[m], TILE))), example.predicted[m])
                for m in models
            ],
        }
        for example in data.examples
    ]
    return template(Path(__file__).with_name("report.html.j2")).render(
        data=data,
        models=models,
        rows=_rows(data, models),
        sheet=sheet,
        examples=examples,
        charts=_charts(data, models),
        pictures=pictures,
        frames=len(next(iter(data.sheet[0].clips.values()))) if data.sheet else 8,
        total_seconds=sum(data.seconds.values()),
    )


def _rows(data: ReportData, models: list[str]) -> list[dict]:
    rows = []
    for name in data.measures:
        measure = MEASURES[name]
        shares = [data.results[model][name] for model in models]
        gain = shares[-1].value - shares[0].value
        better = {"higher": gain > 0, "lower": gain < 0}.get(measure.better, False)
        rows.append(
            {
                "name": name,
                "measure": measure,
                "shares": list(zip(models, shares, strict=True)),
                "gain": gain,
                "better": better,
            }
        )
    return rows


def _charts(data: ReportData, models: list[str]) -> list[dict]:
    charts = []
    for title, note, metric, scale, low, reference in _CHARTS:
        lines, shown = [], []
        for number, model in enumerate(models):
            records = [r for r in data.metrics[model] if r.get(metric) is not None]
            if records:
                values = smooth([r[metric] * scale for r in records], 0.6)
                lines.append(Line(f"c{1 - number}", [r["epoch"] for r in records], values))
                shown.append(model)
        if lines:
            svg = line_chart(lines, title, low=low, reference=data.chance if reference else None)
            charts.append({"title": title, "note": note, "svg": Markup(svg), "models": shown})
    return charts


def _enlarge(frames: np.ndarray) -> np.ndarray:
    """uint8 (T,H,W,3) -> (T,TILE,TILE,3), so that an outline is a thin line."""
    from PIL import Image

    resized = [Image.fromarray(f).resize((TILE, TILE), Image.Resampling.BICUBIC) for f in frames]
    return np.stack([np.asarray(image) for image in resized])
