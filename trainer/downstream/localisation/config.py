"""Options of `unstill localise`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ....pipeline.errors import InputError
from ....pipeline.options import at_least, check_options, more_than
from ..head_config import FeatureHeadConfig


@dataclass(frozen=True, kw_only=True)
class LocaliseConfig(FeatureHeadConfig):
    """Train a head on features of annotated videos, and measure how well it finds the actions of others."""

    features: Annotated[Path, Positional, arg(metavar="FEATURES")]
    """Folder of features, KEY.npy a video, training and test videos together."""
    annotations: Annotated[Path, Positional, arg(metavar="ANNOTATIONS")]
    """Actions in seconds, in the JSON of ActivityNet or THUMOS14."""
    out: Annotated[Path, Positional, arg(metavar="OUT")]
    """Folder for the numbers, the detections, pictures, and the files that other repositories read."""
    train_subset: str = "validation"
    """Videos that the head is trained on. THUMOS14: validation, ActivityNet: training."""
    test_subset: str = "test"
    """Videos that it is measured on. THUMOS14: test, ActivityNet: validation."""
    tiou: Literal["thumos", "activitynet"] = "thumos"
    """Thresholds of temporal IoU. thumos: .1 to .7 by .1, averages over .1 to .7 and over .3 to .7. activitynet: .5 to
    .95 by .05, and their average."""
    epochs: int = 30
    """Passes over the training videos."""
    batch_size: int = 4
    """Videos of a batch."""
    lr: float = 1e-3
    """Highest learning rate: it rises over the first sixth of the steps and then falls to 0 along a cosine."""
    channels: int = 128
    """Width of the head."""
    longest: int = 2304
    """Rows of a training video that a batch takes; of a longer one, a random part around an action."""
    fps: float | None = None
    """Frames per second that the features were made at; of folders without features.json, which need it."""

    def __post_init__(self):
        super().__post_init__()
        if self.train_subset.lower() == self.test_subset.lower():
            raise InputError(f"--train-subset and --test-subset are both {self.test_subset}; expected two subsets")
        check_options(
            self,
            epochs=at_least(1),
            batch_size=at_least(1),
            lr=more_than(0),
            channels=at_least(1),
            longest=at_least(32),
            fps=more_than(0),
        )
