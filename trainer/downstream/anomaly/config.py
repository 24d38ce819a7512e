"""Options of `unstill anomaly`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ....pipeline.errors import InputError
from ....pipeline.options import at_least, check_options, more_than
from ..head_config import FeatureHeadConfig


@dataclass(frozen=True, kw_only=True)
class AnomalyConfig(FeatureHeadConfig):
    """Train a head on features of labelled videos, and measure when it finds the anomalies of others."""

    features: Annotated[tuple[Path, ...], Positional, arg(metavar="FEATURES")]
    """Folders of features, KEY.npy a video, training and test videos together. With several, each after the first is
    compared with the first: give the baseline's first."""
    train_list: Path
    """Training videos, CLASS/VIDEO.mp4 a line, as UCF-Crime's Anomaly_Train.txt; "normal" in the name of a folder says
    that its videos are."""
    truth: Path
    """Test videos with the frames of their anomalies, as UCF-Crime's Temporal_Anomaly_Annotation file."""
    head: Literal["mil", "top-magnitude"] = "mil"
    """mil: Sultani's ranking network. top-magnitude: in the manner of RTFM, the longest features of a video decide."""
    steps: int = 2000
    """Batches. Sultani trained 20,000; 2,000 take about a tenth of the time."""
    truth_fps: float = 30.0
    """Frames per second that --truth counts in. Features of another rate are an error: times are never converted."""
    resamples: int = 1000
    """Of the 95 % intervals, which draw test videos with replacement."""
    out: Path | None = None
    """Folder for anomaly.json, the scores of every frame and the pictures. By default nothing is written."""

    def __post_init__(self):
        super().__post_init__()
        if not self.features:
            raise InputError("expected at least one folder of features")
        check_options(self, steps=at_least(1), truth_fps=more_than(0), resamples=at_least(2))
