"""`unstill bench witnesses`: what the demonstration's two models read, by every question of `unstill diagnose`.

Writes ``bench/results/witnesses.json``: for each model the mean over seeds, with the lowest and the highest seed. The
models are those of `unstill bench demo`, in the same folder; a seed that is not there is rendered and trained first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from ...trainer.demo.run import demo
from ...trainer.demo.settings import DemoConfig
from ...trainer.diagnostics.config import InformationConfig, LookConfig, SceneBiasConfig, StaticDynamicConfig
from ...trainer.diagnostics.evidence import METHODS, measure_evidence
from ...trainer.diagnostics.information_command import measure_information
from ...trainer.diagnostics.scene_bias import measure_scene_bias
from ...trainer.diagnostics.static_dynamic_command import measure_static_dynamic
from ...trainer.evaluation.config import EvaluateOptions
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Chart, Section

SECTIONS = {
    "witnesses": Section(
        title="What the models read",
        text="The demonstration's models asked by `unstill diagnose`: is the label still in what a still clip leaves?",
        order=16,
        picture="models",
        charts={
            "known": Chart(
                title="What the logits know of SCUBA clips",
                reading="Lower bound of the information in the eight logits, as a share of what there is to know; "
                "scene and actor given the class.",
                whiskers="lowest to highest seed",
                main=False,
            ),
            "follows": Chart(
                title="What the last features follow",
                reading="Scores of Kowal et al. (CVPR 2022): agreement over clips with one motion and two appearances "
                "(dynamic), and over a clip and its frames in another order (static).",
                whiskers="lowest to highest seed",
                main=False,
            ),
            "actor": Chart(
                title="Heat on the moving actor",
                reading="On Confl-FG clips; an even map has the actor's share of the picture.",
                whiskers="lowest to highest seed",
                main=False,
            ),
        },
    )
}
MODELS = {"baseline": "cross entropy", "albar": "ALBAR"}
MEASURED = 128  # clips that the heat is averaged over
Key = tuple[str, str, str]  # figure, group, model


@dataclass(frozen=True, kw_only=True)
class WitnessesBench:
    """Ask the demonstration's models what they read, for several seeds."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the weights and the order."""
    runs: Path = Path("runs/bench_demo")
    """Folder of each seed's demonstration, as in `unstill bench demo`."""


def run(config: WitnessesBench) -> Path:
    """Ask every seed's models, print the table, write the result file and return its path."""
    results = ResultFile("witnesses", out=config.out, file_name="witnesses.json")
    found: dict[Key, list[float]] = {}
    units: dict[Key, str] = {}
    for seed in config.seeds:
        settings = replace(DemoConfig(), seed=seed, out=config.runs / f"seed{seed}")
        demo(settings)
        for place, (value, unit) in ask(settings).items():
            found.setdefault(place, []).append(value)
            units[place] = unit
        results.replace(0, *rows(found, units))
    results.note(f"seeds {', '.join(map(str, config.seeds))}; whiskers span the lowest and the highest")
    results.show("What the demonstration's models read")
    return results.finish()


def rows(found: Mapping[Key, Sequence[float]], units: Mapping[Key, str]) -> list[Row]:
    """A row for each model and question: mean, lowest and highest seed."""
    made = []
    for (figure, group, model), values in found.items():
        ends: dict[str, Any] = {"p20": min(values), "p80": max(values)} if len(values) > 1 else {}
        made.append(
            Row(
                title=f"{MODELS.get(model, model)}: {group}",
                value=mean(values),
                **ends,
                unit=units[figure, group, model],
                figure=figure,
                label=MODELS.get(model, model),
                group=group,
                role="ours" if model == "albar" else "limit" if model not in MODELS else "peer",
                facts={"seeds": len(values)},
            )
        )
    return made


def ask(settings: DemoConfig) -> dict[Key, tuple[float, str]]:
    """Every question, to both models of one seed: (figure, what, model) -> value and unit."""
    runs, shards = tuple(settings.out / model for model in MODELS), settings.out / "shards"
    truth, masks = settings.out / "videos" / "truth", settings.out / "videos" / "masks"
    options = EvaluateOptions(device=settings.device, seed=settings.seed)
    found: dict[Key, tuple[float, str]] = {}

    known = measure_information(
        InformationConfig(
            runs=runs, data=shards / "scuba", truth=truth / "scuba.csv", columns=("scene", "actor"), run=options
        )
    )
    for (model, clips, layer, target), value in known.items():
        figure = "known" if layer == "logits" else ""
        about = f"{target.replace(' | class', ', given the class')}, in {layer} of {clips} clips"
        found[figure, about, model] = (100 * value.share, "percent")
        if target == "class":
            found["", f"class named by a probe, from {layer} of {clips} clips", model] = (
                100 * value.accuracy,
                "percent",
            )

    scores = measure_static_dynamic(
        StaticDynamicConfig(runs=runs, data=shards / "iid", partner=shards / "anti", run=options)
    )
    for model, layers in scores.items():
        for layer, score in layers.items():
            figure = "follows" if layer == "penultimate" else ""
            found[figure, f"dynamic score, {layer}", model] = (score.dynamic, "score")
            found[figure, f"static score, {layer}", model] = (score.static, "score")

    evidence = measure_evidence(
        LookConfig(
            runs=runs,
            data=shards / "conflfg",
            masks=masks / "conflfg",
            measured=MEASURED,
            out=settings.out,
            run=options,
        )
    )
    for (model, method), share in evidence.energy.items():
        found["actor", f"heat on the actor, {METHODS[method]}", model] = (share.value, "percent")
        if evidence.area is not None:
            found["actor", f"heat on the actor, {METHODS[method]}", "an even map"] = (evidence.area.value, "percent")

    for model, path in zip(MODELS, runs, strict=True):
        bias = measure_scene_bias(
            SceneBiasConfig(
                train=shards / "train", test=shards / "iid", run=path, seed=settings.seed, device=settings.device
            )
        )
        found["", "B_scene of one still frame, IID", model] = (bias.bias, "nats")
    return found
