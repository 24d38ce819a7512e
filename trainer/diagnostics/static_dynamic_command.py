"""``unstill diagnose static-dynamic``: pairs of clips from datasets, scores of every layer of every model."""

from collections.abc import Mapping
from dataclasses import asdict

import numpy as np

from ..evaluation.derived_clips import ClipTransform, as_filmed, shuffled
from ..evaluation.facts import describe_dataset, describe_runs
from ..evaluation.protocols import source_video
from ..evaluation.subject import load_subject
from .clip_features import clip_features
from .config import StaticDynamicConfig
from .presentation import Bar, Chart, Diagnosis, Table, interval
from .restyle import restyled
from .static_dynamic import StaticDynamic, static_dynamic

SHOWS = (
    "Dynamic: how alike a layer's units are on two clips with one motion and two appearances, over their variance. "
    "Static: how alike they are on a clip and on its frames in another order. About 1: that is all they follow; 0: "
    "not at all.",
    "A layer that keeps neither order nor appearance scores low on both, and a high score does not say that the "
    "classifier uses it. Clips of a pair may share more than motion (size and place of the actor, say), which "
    "counts as dynamic.",
)


def diagnose_static_dynamic(config: StaticDynamicConfig) -> Diagnosis:
    """Measure every layer of every model.

    Raises:
        InputError: a model or dataset cannot be used, or the two datasets do not hold the same keys.
    """
    scores = measure_static_dynamic(config)
    places = [(model, layer, s) for model, layers in scores.items() for layer, s in layers.items()]
    rows = [
        (model, layer, interval(s.dynamic, *s.dynamic_interval), interval(s.static, *s.static_interval))
        for model, layer, s in places
    ]
    counts = [(model, layer, *map(_counts, (s.dimensions, s.units))) for model, layer, s in places]
    bars = [
        Bar(f"{layer}: {factor}", model, getattr(s, factor), *getattr(s, f"{factor}_interval"))
        for layer in dict.fromkeys(layer for layers in scores.values() for layer in layers)
        for factor in ("dynamic", "static")
        for model, layers in scores.items()
        if (s := layers.get(layer)) is not None
    ]
    note = (
        "Dimensions: softmax of both scores and 1, as published, which keeps the first two between 15.5 and 42.2 % of "
        "the units. Units: by whether their own correlation over pairs is above 0.5."
    )
    columns = ("model", "layer", "dimensions: dynamic, static, residual", "units: dynamic, static, joint, neither")
    pairs = f"{config.data} and {config.partner}, by key" if config.partner else f"{config.data} and its clips restyled"
    return Diagnosis(
        name="static-dynamic",
        title="What do the layers follow: motion, or appearance?",
        shows=SHOWS,
        content={m: {layer: asdict(s) for layer, s in layers.items()} for m, layers in scores.items()},
        charts=[
            Chart(
                "Static and dynamic scores",
                bars,
                max(1.0, *(bar.value for bar in bars)),
                "Lines: 95 % intervals over videos.",
            )
        ],
        tables=[
            Table(
                "Scores, with 95 % intervals over videos",
                ("model", "layer", "dynamic", "static"),
                rows,
                text=("layer",),
            ),
            Table("Dimensions and units", columns, counts, note, text=("layer",)),
        ],
        facts={
            **describe_runs(config.runs),
            "data": describe_dataset(config.data),
            "dynamic pairs": pairs,
            "static pairs": "each clip, and its frames in another order",
            "seed": str(config.run.seed),
        },
    )


def measure_static_dynamic(config: StaticDynamicConfig) -> dict[str, dict[str, StaticDynamic]]:
    """Model -> layer -> scores."""
    subjects = [load_subject(run, trust_model_code=config.trust_model_code) for run in config.runs]
    seed = config.run.seed

    def mix(frames, keys):
        return shuffled(frames, keys, seed)

    def style(frames, keys):
        return restyled(frames, keys, seed)

    kinds: dict[str, ClipTransform] = {"filmed": as_filmed, "mixed": mix}
    if config.partner is None:
        kinds |= {"other": style, "other mixed": lambda frames, keys: mix(style(frames, keys), keys)}
    own = clip_features(subjects, config.data, kinds, config.run, config.layers)
    others = own
    if config.partner is not None:
        kinds = {"other": as_filmed, "other mixed": mix}
        others = clip_features(subjects, config.partner, kinds, config.run, config.layers)
    found: dict[str, dict[str, StaticDynamic]] = {}
    for model, features in own.items():
        other = others[model]
        rows = other.rows_of(features.keys, config.partner or config.data)
        groups = [source_video(key) for key in features.keys]
        found[model] = {}
        for layer in dict.fromkeys(layer for _, layer in features.values):
            filmed, mixed = (features.values[kind, layer] for kind in ("filmed", "mixed"))
            one, one_mixed = (other.values[kind, layer][rows] for kind in ("other", "other mixed"))
            static = np.concatenate([filmed, one]), np.concatenate([mixed, one_mixed])
            if np.concatenate([filmed, one, *static]).var(0).sum() > 0:
                found[model][layer] = static_dynamic((filmed, one), static, groups, seed)
    return found


def _counts(units: Mapping[str, int]) -> str:
    return ", ".join(str(count) for count in units.values())
