"""`unstill bench penalty`: what the gradient penalty changes on the procedural dataset, and what it costs there.

ALBAR as in the demonstration, with the penalty every step, every 4th (the recipe), every 16th, and without it. Taken
every k-th step it is k times as strong, so that the mean strength is the same. Each run is trained once: a repeated
command goes on where the last one stopped. ``--w-adv``, ``--epochs`` and ``--model`` look for settings where the
penalty matters. With another network cross entropy is trained as well, to see whether it learns.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...pipeline.progress import Progress
from ...trainer.config import TrainConfig
from ...trainer.demo.recipes import demo_albar, demo_baseline
from ...trainer.methods import Albar
from ..harness.procedural.measures import COLUMNS
from ..harness.procedural.runs import ProceduralRuns
from ..harness.record import ResultFile
from ..harness.row import Row
from ..harness.section import Chart, Section

CONTRASTED = Chart(
    title="Contrasted accuracy by how often the penalty is taken",
    reading="Means over seeds of videos, weights and order.",
    main=False,
    whiskers="one standard deviation to either side",
)
SECTIONS = {
    "penalty": Section(
        title="What the gradient penalty changes",
        text="ALBAR on the demonstration's videos with the penalty every k-th step and without it.",
        order=11,
        charts={"contrasted": CONTRASTED},
    ),
    "penalty_search": Section(
        title="Where the gradient penalty might matter",
        text="The same with other weights of the adversary, on other seeds.",
        order=12,
        charts={"contrasted": CONTRASTED},
    ),
    "penalty_longer": Section(
        title="The gradient penalty in longer training",
        text="The same with more epochs, on other seeds.",
        order=13,
        charts={"contrasted": CONTRASTED},
    ),
    "penalty_deeper": Section(
        title="The gradient penalty with a deeper network",
        text="The same with 12 convolutions, 8 of them in residual blocks, instead of 4, on other seeds.",
        order=14,
        charts={"contrasted": CONTRASTED},
    ),
}
LEARNS = 90  # percent of ordinary videos: what cross entropy must reach with a network for its rows to say something
ABOUT = ("gp_every", "w_adv", "epochs", "model")  # of a row: its setting


@dataclass(frozen=True, kw_only=True)
class PenaltyBench:
    """Train ALBAR with the penalty taken more and less often, and without it."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    every: tuple[int, ...] = (1, 4, 16)
    """Values of `method.gp_every`."""
    without: bool = True
    """Also train without the penalty."""
    w_adv: tuple[float, ...] = (0.1,)
    """Weights of the static adversary; the recipe's is 0.1."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the weights and the order."""
    runs: Path = Path("runs/bench_demo")
    """Folder for each seed's videos, shards and models, the one of `unstill bench bias`."""
    train: int = 1024
    """Number of training videos."""
    test: int = 512
    """Number of videos in each test set."""
    epochs: tuple[float, ...] = (12,)
    """Passes over the training videos; the recipe's are 12."""
    model: Literal["motion_cnn", "motion_resnet"] = "motion_cnn"
    """The network: the recipe's, with 4 convolutions, or one with 12."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""

    @property
    def name(self) -> str:
        """Of the result file: settings that are not the recipe's have one of their own."""
        if self.model != demo_albar().model.name:
            return "penalty_deeper"
        if self.epochs != (demo_albar().epochs,):
            return "penalty_longer"
        return "penalty" if self.w_adv == (_method().w_adv,) else "penalty_search"


def run(config: PenaltyBench) -> Path:
    """Train and test what is not done yet, print the table, write the result file and return its path."""
    runs = ProceduralRuns(folder=config.runs, train=config.train, test=config.test, device=config.device)
    variants, found = recipes(config), []
    results = ResultFile(config.name, out=config.out, notes=_NOTES, file_name=f"{config.name}.json")
    with Progress("penalty", len(config.seeds) * len(variants), "runs") as progress:
        for seed in config.seeds:
            runs.make_data(seed)
            if (control := plain(config)) is not None:
                results.add(plain_row(config, seed, runs.measures(f"baseline_{config.model}", control, seed)))
            for about, recipe in variants:
                measured = runs.measures(label(about), recipe, seed)
                found.append({**about, "seed": seed, **measured})
                results.add(run_row(found[-1]))
                progress.advance(note=label(about))
    results.add(*(mean_row(same) for same in by_setting(found)), *spread_rows(found))
    results.show("ALBAR by how often the penalty is taken", ["n", *COLUMNS, "train_cpu_seconds"])
    return results.finish()


_NOTES = (
    "gp_every 0: without the penalty. A penalty that is taken every k-th step is k times as strong. Percent; means and "
    "sample standard deviations over seeds of videos, weights and order.",
    "train_cpu_seconds: CPU time of the training process, all threads, decoding included.",
)


def recipes(config: PenaltyBench) -> list[tuple[dict[str, Any], TrainConfig]]:
    """What is trained on each seed: its setting, and its recipe."""
    found = []
    often = (*config.every, *([0] if config.without else []))
    for w_adv, epochs, every in itertools.product(config.w_adv, config.epochs, often):
        changes: dict[str, Any] = {"gp_every": every} if every else {"w_gp": 0.0, "gp_every": 1}
        method = replace(_method(), w_adv=w_adv, **changes)
        about = {"gp_every": every, "w_adv": w_adv, "epochs": epochs, "model": config.model}
        found.append((about, with_model(replace(demo_albar(), method=method, epochs=epochs), config.model)))
    return found


def with_model(recipe: TrainConfig, name: str) -> TrainConfig:
    """The recipe with another network."""
    return replace(recipe, model=replace(recipe.model, name=name))


def plain(config: PenaltyBench) -> TrainConfig | None:
    """Cross entropy with a network that is not the recipe's; None for the recipe's: see `unstill bench bias`."""
    return None if config.model == demo_baseline().model.name else with_model(demo_baseline(), config.model)


def plain_row(config: PenaltyBench, seed: int, measured: Mapping[str, float]) -> Row:
    """Whether the network learns at all."""
    title = f"cross entropy, {config.model}, seed {seed}: accuracy on ordinary videos"
    facts = {"model": config.model, "seed": seed, **measured}
    return Row(title=title, value=measured["iid"], unit="percent", at_least=LEARNS, facts=facts)


def label(about: Mapping[str, Any]) -> str:
    """What a setting is called in folders and tables."""
    often = f"every_{about['gp_every']}" if about["gp_every"] else "none"
    longer = "" if about["epochs"] == demo_albar().epochs else f"_epochs_{about['epochs']:g}"
    model = "" if about["model"] == demo_albar().model.name else f"_{about['model']}"
    return f"penalty_{often}_adv_{about['w_adv']:g}{longer}{model}"


def _method() -> Albar:
    method = demo_albar().method
    assert isinstance(method, Albar)
    return method


def words(about: Mapping[str, Any]) -> str:
    """The same for people."""
    every = about["gp_every"]
    often = "no penalty" if not every else "every step" if every == 1 else f"every {every}th step"
    adversary = "" if about["w_adv"] == _method().w_adv else f", w_adv {about['w_adv']:g}"
    return often + adversary + ("" if about["epochs"] == demo_albar().epochs else f", {about['epochs']:g} epochs")


def run_row(facts: Mapping[str, Any]) -> Row:
    """The row of one run."""
    title = f"{words(facts)}, seed {facts['seed']}: contrasted accuracy"
    return Row(title=title, value=facts["contrasted"], unit="percent", better="higher", facts=facts)


def by_setting(found: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The runs of each setting, in order of appearance."""
    same: dict[str, list[Mapping[str, Any]]] = {}
    for each in found:
        same.setdefault(label(each), []).append(each)
    return list(same.values())


def mean_row(runs: Sequence[Mapping[str, Any]]) -> Row:
    """Mean of a setting's runs, with the standard deviation where there are several."""
    facts: dict[str, Any] = {name: runs[0][name] for name in ABOUT} | {"n": len(runs)}
    for column in (*COLUMNS, "train_cpu_seconds"):
        values = np.array([each[column] for each in runs], np.float64)
        facts[column] = round(float(values.mean()), 3)
        if len(runs) > 1:
            facts[f"{column}_sd"] = round(float(values.std(ddof=1)), 3)
    mean, sd = facts["contrasted"], facts.get("contrasted_sd")
    ends = {"p20": mean - sd, "p80": mean + sd} if sd else {}
    return Row(
        title=f"{words(runs[0])}: contrasted accuracy, mean of {len(runs)}",
        value=mean,
        **ends,
        unit="percent",
        better="higher",
        figure="contrasted",
        label=words(runs[0]),
        role="peer" if runs[0]["gp_every"] == 0 else "ours",
        facts=facts,
    )


def spread_rows(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """How far the mean with a penalty lies from the mean without, in standard deviations of a run.

    Below 2 the seeds do not tell the two apart. Only with several seeds; nothing for a setting without its control.
    """
    alike = lambda one, other: all(one[name] == other[name] for name in ("w_adv", "epochs"))  # noqa: E731
    rows = []
    for same in by_setting(found):
        control = [each for each in found if each["gp_every"] == 0 and alike(each, same[0])]
        if same[0]["gp_every"] == 0 or len(same) < 2 or len(control) < 2:
            continue
        ours, theirs = (np.array([each["contrasted"] for each in runs], np.float64) for runs in (same, control))
        pooled = np.sqrt((ours.var(ddof=1) + theirs.var(ddof=1)) / 2)
        title = f"{words(same[0])}, contrasted accuracy above no penalty"
        facts = {name: same[0][name] for name in ABOUT} | {"pooled_sd": float(pooled)}
        rows.append(Row(title=title, value=float(ours.mean() - theirs.mean()), unit="points", facts=facts))
    return rows
