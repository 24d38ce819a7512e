"""``unstill diagnose look``: where models find their evidence, as strips of frames, and its share on the actor."""

import numpy as np
from PIL import Image

from ..evaluation.facts import describe_dataset, describe_runs
from .clip_strips import outline, overlay, strip
from .config import LookConfig
from .evidence import METHODS, ShownClip, measure_evidence
from .presentation import Bar, Chart, Diagnosis, Strip, Table, interval, number

TILE, MOST_FRAMES = 112, 8  # of a strip: side of a frame in pixels, and frames, spread evenly
SHOWS = (
    "Bright: where and when there is evidence for the class, each map scaled to its own maximum. Grad-CAM is coarse, "
    "a map of a late layer scaled up; integrated gradients are fine and noisy.",
    "Evidence on the actor is not evidence of motion: a model that reads the colour of what moves lights up there, "
    "too. Maps say where a logit comes from, not what would happen without it.",
)


def diagnose_look(config: LookConfig) -> Diagnosis:
    """Look at clips with every model.

    Raises:
        InputError: a model, dataset, key or mask cannot be used.
    """
    found = measure_evidence(config)
    bars = [Bar(METHODS[method], model, s.value, s.low, s.high) for (model, method), s in found.energy.items()]
    bars.sort(key=lambda bar: list(METHODS.values()).index(bar.group))
    tables, charts = [], []
    if found.area is not None:
        area = found.area.value
        rows = [
            (model, METHODS[method], interval(s.value, s.low, s.high), number(s.value / area), str(s.samples))
            for (model, method), s in found.energy.items()
        ]
        columns = ("model", "method", "on the actor, %", "times its area", "clips")
        note = f"An even map has {number(area)} % on the actor, its share of the picture."
        tables.append(Table("Heat on the actor", columns, rows, note, text=("method",)))
        charts.append(Chart("Heat on the actor, percent", bars, 100.0, note, (area, "an even map")))
    predictions = [
        (shown.key, shown.label, *(own.predicted for own in shown.evidence.values())) for shown in found.shown
    ]
    models = list(found.shown[0].evidence)
    tables.append(
        Table("Predictions on the clips shown", ("clip", "class", *models), predictions, text=("class", *models))
    )
    return Diagnosis(
        name="look",
        title="Where and when is the evidence?",
        shows=SHOWS,
        content={
            "energy": [
                {"model": model, "method": method, "percent": s.value, "low": s.low, "high": s.high, "clips": s.samples}
                for (model, method), s in found.energy.items()
            ],
            "area_percent": None if found.area is None else found.area.value,
            "largest_gap": found.gap,
            "clips": [
                {"key": s.key, "class": s.label, "predicted": {m: own.predicted for m, own in s.evidence.items()}}
                for s in found.shown
            ],
        },
        charts=charts,
        tables=tables,
        strips=[_strip(shown) for shown in found.shown],
        facts={
            **describe_runs(config.runs),
            "data": describe_dataset(config.data),
            "evidence for": _TARGETS[config.target],
            "Grad-CAM": f"last layer with a map of {config.places} x {config.places} places or more",
            "integrated gradients": f"from {_BASELINES[config.baseline]}, {config.steps} steps; the sum misses the "
            f"change of the logit by {100 * found.gap:.2g} % at most",
        },
    )


_TARGETS = {"label": "the video's class", "predicted": "the class that the model names"}
_BASELINES = {"grey": "the mean colour", "still": "the middle frame, repeated"}


def _strip(shown: ShownClip) -> Strip:
    pick = np.unique(np.linspace(0, len(shown.frames) - 1, MOST_FRAMES).round().astype(int))
    large = np.stack([_large(frame) for frame in shown.frames[pick]])
    clip = large if shown.mask is None else outline(large, shown.mask[pick])
    rows = [("clip", shown.label, strip(clip))]
    for model, own in shown.evidence.items():
        for method, heat in own.heat.items():
            drawn = overlay(shown.frames[pick], heat[pick], TILE)
            rows.append((f"{model}, {METHODS[method]}", f"says {own.predicted}", strip(drawn)))
    return Strip(f"{shown.label}: {shown.key}", rows)


def _large(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.BICUBIC))
