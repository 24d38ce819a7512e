"""What the demonstration consists of: its options, its two runs, its test sets and the measures that it shows."""

from dataclasses import dataclass, replace
from pathlib import Path

from ...pipeline.loading.device import Device
from ...pipeline.options import at_least, check_options
from ..config import TrainConfig
from ..evaluation.config import TestSets
from .motions.world import CLASSES, MIRROR_CLASS, TESTS
from .recipes import demo_albar, demo_baseline

SPLITS = ("train", *TESTS)
MODELS = {"baseline": "cross entropy", "albar": "ALBAR"}  # name in results.json -> name that people read
CHANCE = 100 / len(CLASSES)
# the published measures, what SCUFO's accuracy cannot tell, those that only exact masks allow, and the controls for a
# motion gate
COLUMNS = (
    *("iid", "scuba", "scufo", "conflfg", "contrasted"),
    *("scufo_least", "scufo_probe", "scufo_feature_probe"),
    *("anti", "swap", "shaken_scufo", "reversed_keep", "reversed_flip"),
)


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """Render a biased dataset, train with plain cross entropy and with ALBAR, and compare what each has learned."""

    out: Path = Path("runs/demo")
    """Folder for everything: videos, shards, both runs, results.json and report.html."""
    seed: int = 0
    """Of the videos, the weights, the order of training and the derived test clips."""
    train: int = 1024
    """Number of training videos."""
    test: int = 512
    """Number of videos in each of the five test sets."""
    epochs: float | None = None
    """Passes over the training videos; by default the recipes' own."""
    device: Device = "auto"
    """Where to decode and train. auto: cuda where there is one."""
    workers: int = 0
    """Threads and processes that render and convert; 0 is one for every core."""
    fresh: bool = False
    """Do every stage again."""

    def __post_init__(self):
        check_options(
            self, test=at_least(8, "videos, of which the probe of still clips needs some in each of its parts")
        )


def train_configs(config: DemoConfig) -> dict[str, TrainConfig]:
    """The two runs, "baseline" and "albar": the recipes on this demonstration's data and seed."""
    changes = {"data": config.out / "shards" / "train", "seed": config.seed, "device": config.device}
    if config.epochs is not None:
        changes["epochs"] = config.epochs
    recipes = {"baseline": demo_baseline, "albar": demo_albar}
    return {name: replace(recipe(), out=config.out / name, **changes) for name, recipe in recipes.items()}


def demo_sets(config: DemoConfig) -> TestSets:
    """The demonstration's test sets."""
    shards = config.out / "shards"
    return TestSets(
        iid=shards / "iid",
        scuba={"unseen": shards / "scuba"},
        conflfg=shards / "conflfg",
        conflfg_truth=config.out / "videos" / "truth" / "conflfg.csv",
        others={"anti": shards / "anti", "swap": shards / "swap"},
        mirror=MIRROR_CLASS,
    )
