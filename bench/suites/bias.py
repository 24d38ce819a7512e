"""`unstill bench bias`: every method on the procedural dataset, in the table of the literature, over several seeds.

Writes ``bench/results/bias.json``: a row for each method with mean and sample standard deviation over the seeds, and a
row for each run. Each (method, seed) is trained once: a repeated command goes on where the last one stopped.
``anti`` and ``swap``, columns that only exact masks allow and that no paper reports, say who learned motion.

With ``--tune`` every method, cross entropy and ALBAR included, is trained with each of its three settings instead
(``GRIDS``), on other seeds than the table's. ``bias_tuning.json`` holds the outcome; the recipes take the setting with
the highest ``criterion``.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...pipeline.atomic_files import write_atomic
from ...pipeline.conversion.convert import ConvertConfig, convert
from ...pipeline.errors import InputError
from ...pipeline.loading.codec_support import codec_for
from ...pipeline.progress import Progress
from ...pipeline.shards.index import SampleIndex
from ...trainer.augmentations import StillMix
from ...trainer.config import TrainConfig, from_dict, to_dict
from ...trainer.demo import recipes
from ...trainer.demo.motions.boxes import write_boxes
from ...trainer.demo.motions.files import write_motions
from ...trainer.demo.motions.harder import HarderWorld
from ...trainer.demo.motions.world import CLASSES, TESTS, MotionsConfig
from ...trainer.demo.settings import CHANCE, DemoConfig, demo_sets
from ...trainer.diagnostics.config import StillBankConfig
from ...trainer.diagnostics.still_bank import build_still_bank
from ...trainer.evaluation.config import EvaluateOptions
from ...trainer.evaluation.evaluate import evaluate
from ...trainer.evaluation.measures import MEASURES as DEFINITIONS
from ...trainer.evaluation.subject import load_subject
from ...trainer.train import train
from ..harness.record import ResultFile, show
from ..harness.row import Better, Row
from ..harness.section import Chart, Section

METHODS = {
    "baseline": recipes.demo_baseline,
    "mixup": recipes.demo_mixup,
    "videomix": recipes.demo_videomix,
    "sdn": recipes.demo_sdn,
    "be": recipes.demo_be,
    "actor_cutmix": recipes.demo_actor_cutmix,
    "fame": recipes.demo_fame,
    "stillmix": recipes.demo_stillmix,
    "two_streams": recipes.demo_two_streams,
    "albar": recipes.demo_albar,
    "albar_stillmix": recipes.demo_albar_stillmix,
}
TITLES = {
    "baseline": "cross entropy",
    "mixup": "Mixup",
    "videomix": "VideoMix",
    "sdn": "SDN",
    "be": "BE",
    "actor_cutmix": "ActorCutMix",
    "fame": "FAME",
    "stillmix": "StillMix",
    "two_streams": "two streams (HSIC)",
    "albar": "ALBAR",
    "albar_stillmix": "ALBAR + StillMix",
}
# Three settings a method: its main constant at two values, and the first of them at half the learning rate. Values of
# the other methods are among their authors'; ALBAR's published weights collapse to chance on so small a network, and
# the weights of two_streams are not known to us.
RATE, LOWER_RATE = 4e-3, 2e-3
MAIN_CONSTANT = {
    "mixup": ("augmentation.prob", 0.5, 0.25),
    "videomix": ("augmentation.prob", 0.75, 0.25),
    "sdn": ("method.alpha", 0.5, 1.0),
    "be": ("augmentation.prob", 0.5, 0.25),
    "actor_cutmix": ("augmentation.prob", 0.25, 0.5),
    "fame": ("augmentation.prob", 0.25, 0.5),
    "stillmix": ("augmentation.prob", 1.0, 0.5),
    "two_streams": ("method.w_hsic", 1.0, 3.0),
    "albar": ("method.w_adv", 0.3, 0.1),
    "albar_stillmix": ("augmentation.prob", 0.5, 0.25),
}
Setting = Mapping[str, float]
GRIDS: Mapping[str, tuple[Setting, ...]] = {
    "baseline": tuple({"optimiser.lr": rate} for rate in (LOWER_RATE, RATE, 2 * RATE))
} | {
    name: tuple({constant: value, "optimiser.lr": rate} for value, rate in ((a, RATE), (b, RATE), (a, LOWER_RATE)))
    for name, (constant, a, b) in MAIN_CONSTANT.items()
}
PEOPLE, STILLS = "people.csv", "stills.safetensors"  # made once a seed
ABOUT = ("method", "setting")  # of a recipe, what is not measured
WORDS = {  # what the report calls the measures
    "iid": "accuracy on ordinary videos",
    "scuba": "SCUBA, the scene exchanged",
    "scufo": "SCUFO, a still frame of it",
    "conflfg": "Confl-FG, a second actor stands still",
    "contrasted": "contrasted",
    "scufo_least": "SCUFO, the label is the least likely class",
    "scufo_probe": "SCUFO, the class read by a linear probe",
    "anti": "anti, scene and actor of other classes",
    "swap": "swap, new scene, another class's actor",
}
MEASURES: dict[str, tuple[str, Better]] = {name: (words, DEFINITIONS[name].better) for name, words in WORDS.items()}
COLUMNS = tuple(MEASURES)
HEADS = dict(  # of the table in docs/results.md
    zip(
        COLUMNS,
        ("IID ↑", "SCUBA ↑", "SCUFO ↓", "Confl-FG ↑", "Contrasted ↑", "Least", "Probe ↓", "Anti ↑", "Swap ↑"),
        strict=True,
    )
)

# HMDB51, mean of the backgrounds, as on the poster of ALBAR (arXiv 2502.00156): IID, SCUBA, SCUFO, Confl-FG, contrasted
PUBLISHED_HMDB51 = {
    "baseline": (73.92, 43.93, 20.46, 36.58, 27.84),
    "mixup": (74.58, 43.10, 21.17, 36.62, 26.09),
    "videomix": (73.31, 39.39, 20.44, 32.68, 23.13),
    "sdn": (74.66, 40.02, 20.22, 34.87, 22.88),
    "be": (74.31, 43.56, 19.96, 35.99, 27.84),
    "actor_cutmix": (74.05, 46.79, 22.07, 36.97, 28.12),
    "fame": (73.79, 51.40, 26.92, 39.61, 29.66),
    "stillmix": (74.82, 51.81, 13.39, 47.38, 40.28),
    "albar": (73.20, 53.2, 0.42, 49.84, 53.02),
}
GUESSING = (CHANCE, f"guessing, {CHANCE:g} %")


def _charts(title: str, reading: str, measures: Sequence[str], main: Sequence[str]) -> dict[str, Chart]:
    return {
        measure: Chart(
            title=f"{title}: {MEASURES[measure][0]}",
            reading=reading,
            main=measure in main,
            whiskers="one standard deviation to either side",
            column=measure,
            of="methods",
            unit="percent",
            better=MEASURES[measure][1],
            reference=GUESSING if DEFINITIONS[measure].guess(len(CLASSES)) == CHANCE else None,
        )
        for measure in measures
    }


SECTIONS = {
    "bias": Section(
        title="Every method on one dataset",
        text="Accuracy when scene, still frame or appearance no longer give the class away.",
        order=9,
        picture="models",
        charts=_charts(
            "Every method",
            "Means over seeds, every method on the same videos.",
            COLUMNS,
            main=("contrasted", "scufo_probe", "anti"),
        ),
    ),
    "bias_tuning": Section(
        title="Three settings of every method",
        text="The same budget for each, on other seeds than the table's.",
        order=10,
        picture="models",
        charts=_charts(
            "Every method's settings",
            "Means over seeds that the table of all methods does not use.",
            ("iid", "scuba", "scufo_probe"),
            main=(),
        ),
    ),
}


@dataclass(frozen=True, kw_only=True)
class BiasBench:
    """Train every method on the procedural dataset and measure what still frames, scenes and actors tell it."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    methods: tuple[str, ...] = tuple(METHODS)
    """Which methods."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the videos, the weights and the order."""
    runs: Path = Path("runs/bench_demo")
    """Folder for each seed's videos, shards and models; `unstill bench demo` makes the same videos and shards."""
    train: int = 1024
    """Number of training videos."""
    test: int = 512
    """Number of videos in each test set."""
    tune: bool = False
    """Instead of the table: train every method with each of its three settings. Give other seeds than the table's."""
    epochs: float | None = None
    """Passes over the training videos; by default the recipes' own."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to train."""

    def __post_init__(self):
        unknown = [name for name in self.methods if name not in METHODS]
        if unknown:
            raise InputError(f"methods: {unknown[0]!r} is not one of {', '.join(METHODS)}")

    def recipes(self) -> list[tuple[dict[str, Any], TrainConfig]]:
        """What is trained on each seed: what its rows say of it, and its recipe."""
        if not self.tune:
            return [({"method": name}, METHODS[name]()) for name in self.methods]
        return [
            ({"method": name, "setting": setting_words(setting)}, with_setting(METHODS[name](), setting))
            for name in self.methods
            for setting in GRIDS[name]
        ]


def run(config: BiasBench) -> Path:
    """Train and test what is not done yet, print the table, write the result file and return its path."""
    found, variants = [], config.recipes()
    name = "bias_tuning" if config.tune else "bias"
    results = ResultFile(name, out=config.out, notes=_NOTES, file_name=f"{name}.json")
    with Progress("methods", len(config.seeds) * len(variants), "runs") as progress:
        for seed in config.seeds:
            make_data(config, seed)
            for row, recipe in variants:
                found.append({**row, "seed": seed, **run_one(config, label(row), recipe, seed)})
                progress.advance(note=label(row))
    rows = summary(found)
    show("Bias of every method, percent, mean over seeds", [mean_only(row) for row in rows])
    print(markdown(rows))
    if config.tune:
        best = "; ".join(f"{TITLES[method]}: {setting}" for method, setting in best_settings(rows).items())
        results.note(f"{_BUDGET}. Highest: {best}")
    else:
        results.note(f"settings chosen on other seeds (bias_tuning.json): {_BUDGET}")
        if set(PUBLISHED_HMDB51) <= {row["method"] for row in rows}:
            found_alike = ", ".join(f"{column} {value:.2f}" for column, value in agreement(rows).items())
            results.note(f"rank correlation with the published HMDB51 columns over its nine methods: {found_alike}")
    results.add(*map(mean_row, rows), *map(run_row, found))
    return results.finish()


_NOTES = (
    "mean and sample standard deviation over seeds of videos, weights and order; n seeds in the column n",
    "scenes (sdn, two_streams) and boxes of the actor (actor_cutmix, sdn) are the true ones; StillMix's stills are "
    "chosen by a network that was trained on single frames of the same videos",
)
_BUDGET = (
    "every method has three settings (two values of its main constant, one of them at half the learning rate; cross "
    "entropy has three rates), judged by the mean of IID, SCUBA, Confl-FG and 100 less the SCUFO probe"
)


def criterion(row: Mapping[str, Any]) -> float:
    """What settings are chosen by, percent: a label that is turned upside down on still clips does not raise it."""
    return (row["iid"] + row["scuba"] + row["conflfg"] + 100 - row["scufo_probe"]) / 4


def mean_row(facts: Mapping[str, Any]) -> Row:
    """The row of a line of ``summary``."""
    setting = facts.get("setting", "")
    ours, title = "albar" in facts["method"], TITLES[facts["method"]]
    tuned: dict[str, Any] = {"label": setting, "group": title} if setting else {"label": title}
    return Row(
        title=f"{title}{', ' if setting else ''}{setting}: contrasted accuracy",
        value=facts["contrasted"],
        unit="percent",
        better="higher",
        figure="methods",
        role="ours" if ours else "peer",
        facts=facts,
        **tuned,
    )


def run_row(facts: Mapping[str, Any]) -> Row:
    """The row of one run."""
    title = f"{label(facts)}, seed {facts['seed']}: contrasted accuracy"
    return Row(title=title, value=facts["contrasted"], unit="percent", better="higher", facts=facts)


def with_setting(recipe: TrainConfig, setting: Setting) -> TrainConfig:
    """The recipe with some of its constants changed, named as on the command line."""
    for constant, value in setting.items():
        part, name = constant.split(".")
        recipe = replace(recipe, **{part: replace(getattr(recipe, part), **{name: value})})
    return recipe


def setting_words(setting: Setting) -> str:
    """What tables call a setting: ``prob 0.5, lr 0.004``."""
    return ", ".join(f"{constant.split('.')[1]} {value:g}" for constant, value in setting.items())


def label(row: Mapping[str, Any]) -> str:
    """What a row's recipe is called in folders and tables: the method, with the setting where several are tried."""
    return "_".join([row["method"], *row.get("setting", "").replace(",", "").split()])


def best_settings(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """For each method the setting with the highest mean criterion."""
    methods = dict.fromkeys(row["method"] for row in rows)
    return {m: max((row for row in rows if row["method"] == m), key=criterion)["setting"] for m in methods}


def agreement(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Spearman's rank correlation of each published column with the measured one, over the methods that both have."""
    measured = {row["method"]: row for row in rows}
    both = [name for name in PUBLISHED_HMDB51 if name in measured]
    ranks = lambda values: np.array([np.sum(values < v) + (np.sum(values == v) - 1) / 2 for v in values])  # noqa: E731
    found = {}
    for n, column in enumerate(COLUMNS[:5]):
        theirs = np.array([PUBLISHED_HMDB51[name][n] for name in both])
        ours = np.array([measured[name][column] for name in both])
        found[column] = float(np.corrcoef(ranks(theirs), ranks(ours))[0, 1])
    return found


def make_data(config: BiasBench, seed: int, world: HarderWorld | None = None) -> Path:
    """Render and convert the videos of one seed, box the actors, choose stills, or find it done; returns the folder."""
    folder = folder_of(config, seed)
    harder = world or HarderWorld()
    videos = MotionsConfig(out=folder / "videos", seed=seed, train=config.train, test=config.test, harder=harder)
    write_motions(videos)
    for split in ("train", *TESTS):
        convert(
            ConvertConfig(
                source=videos.out / split,
                out=folder / "shards" / split,
                codec=codec_for(config.device),
                short_side=videos.size,
                samples_per_shard=256,
                classes=None if split == "train" else folder / "shards" / "train" / "dataset.json",
            )
        )
        expected = config.train if split == "train" else config.test
        if (found := len(SampleIndex.load(folder / "shards" / split))) != expected:
            raise InputError(f"{folder}: holds {found} {split} videos, not {expected}; choose another folder: --runs")
    if not (folder / PEOPLE).exists():
        write_boxes(videos.out, "train", folder / PEOPLE)
    if not (folder / STILLS).exists() and any(
        isinstance(METHODS[name]().augmentation, StillMix) for name in config.methods
    ):
        make_stills(config, seed)
    return folder


def make_stills(config: BiasBench, seed: int) -> Path:
    """StillMix's bank: the stills that a network of single frames is surest about, with the published constants."""
    folder = folder_of(config, seed)
    reference = train_config(config, recipes.demo_reference(), "reference", seed)
    train(reference)
    size = reference.clip.size
    bank = StillBankConfig(
        data=reference.data, out=folder / STILLS, reference=reference.out, size=size, seed=seed, device=config.device
    )
    return build_still_bank(bank)


def folder_of(config: BiasBench, seed: int) -> Path:
    """Where a seed's videos, shards and models are."""
    return config.runs / f"seed{seed}"


def run_one(config: BiasBench, name: str, recipe: TrainConfig, seed: int) -> dict[str, float]:
    """Measures of one recipe on one seed's data, in percent, and the seconds it trained: by the clock and of CPU."""
    folder, settings = folder_of(config, seed), train_config(config, recipe, name, seed)
    known = known_measures(config, name, recipe, seed)
    if known is not None:
        return known
    began, cpu_began = time.monotonic(), time.process_time()
    train(settings)
    seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
    demo = DemoConfig(out=folder, seed=seed, device=config.device)
    options = EvaluateOptions(device=config.device, seed=seed)
    result = evaluate([load_subject(settings.out, name)], demo_sets(demo), options)[name]
    measures = {name: round(share.value, 3) for name, share in result.card.shares.items()}
    measures["criterion"] = round(criterion(measures), 3)
    measures |= {"train_seconds": round(seconds, 1), "train_cpu_seconds": round(cpu_seconds, 1)}
    plain = {k: v for k, v in to_dict(settings).items() if k not in ("data", "out", "loader", "log", "checkpoint")}
    record = {"settings": plain, "measures": measures}
    write_atomic(folder / "bias" / f"{name}.json", json.dumps(record, indent=1).encode())
    return measures


def known_measures(config: BiasBench, name: str, recipe: TrainConfig, seed: int) -> dict[str, float] | None:
    """What ``run_one`` found before, with this recipe; None where it has yet to be trained."""
    settings, done = train_config(config, recipe, name, seed), folder_of(config, seed) / "bias" / f"{name}.json"
    if not done.exists():
        return None
    saved = json.loads(done.read_text())
    # options that came later are read at their defaults: they do not make a run another one
    known = from_dict({**to_dict(settings), **saved["settings"]})
    if known == settings and {*COLUMNS, "train_cpu_seconds"} <= set(saved["measures"]):
        return saved["measures"]
    return None


def train_config(config: BiasBench, recipe: TrainConfig, name: str, seed: int) -> TrainConfig:
    """A recipe on one seed's data: its videos, and what they are known to show."""
    folder = folder_of(config, seed)
    changes: dict[str, Any] = {} if config.epochs is None else {"epochs": config.epochs}
    if getattr(recipe.method, "scenes", None) is not None:
        changes["method"] = replace(recipe.method, scenes=folder / "videos" / "truth" / "train.csv")
    if recipe.inputs.people is not None:
        changes["inputs"] = replace(recipe.inputs, people=folder / PEOPLE)
    if isinstance(recipe.augmentation, StillMix):
        changes["augmentation"] = replace(recipe.augmentation, bank=folder / STILLS)
    return replace(
        recipe,
        data=folder / "shards" / "train",
        out=folder / "bias" / name,
        seed=seed,
        device=config.device,
        **changes,
    )


def summary(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row a recipe, in order of appearance: n, and mean and sample standard deviation of every measure."""
    rows, same = [], {}
    for run in found:
        same.setdefault(label(run), []).append(run)
    for runs in same.values():
        row: dict[str, Any] = {name: runs[0][name] for name in ABOUT if name in runs[0]}
        row["n"] = len(runs)
        measured = [name for name in runs[0] if name not in (*COLUMNS, *ABOUT, "seed")]
        for column in (*known_columns(runs), *measured):
            values = np.array([run[column] for run in runs], np.float64)
            row[column] = round(float(values.mean()), 6)
            if len(runs) > 1:
                row[f"{column}_sd"] = round(float(values.std(ddof=1)), 6)
        rows.append(row)
    return rows


def mean_only(row: Mapping[str, Any]) -> dict[str, Any]:
    """The columns that fit a terminal."""
    shown = {name: row[name] for name in ("method", "setting", "n") if name in row}
    return shown | {name: round(row[name], 1) for name in known_columns([row])}


def known_columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The columns that all rows have; files of older versions lack some."""
    return [name for name in COLUMNS if all(name in row for row in rows)]


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The tables of docs/results.md: what was measured here, and what was published for HMDB51."""
    known = known_columns(rows)
    titles = [HEADS[name] for name in known]
    lines = [f"| percent, mean ± sd | {' | '.join(titles)} |", "|---" + "|---:" * len(titles) + "|"]
    for row in rows:
        cells = [
            f"{row[column]:.1f}" + (f" ± {row[f'{column}_sd']:.1f}" if f"{column}_sd" in row else "")
            for column in known
        ]
        setting = f", {row['setting']}" if "setting" in row else ""
        lines.append(f"| {TITLES[row['method']]}{setting} | {' | '.join(cells)} |")
    lines += ["", f"| published, HMDB51 | {' | '.join(titles[:5])} |", "|---" + "|---:" * 5 + "|"]
    for method, values in PUBLISHED_HMDB51.items():
        lines.append(f"| {TITLES[method]} | {' | '.join(f'{value:.2f}' for value in values)} |")
    return "\n".join(lines)
