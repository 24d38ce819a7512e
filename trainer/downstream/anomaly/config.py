"""Options of `unstill anomaly`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ....pipeline.errors import InputError
from ....pipeline.loading.device import Device
from ....pipeline.options import at_least, check_options, more_than


@dataclass(frozen=True, kw_only=True)
class AnomalyConfig:
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
    seeds: tuple[int, ...] = (0, 1, 2)
    """The head is trained once for each, and measures are means over them."""
    window: int = 16
    """Frames that a row of features covers; of folders without features.json."""
    stride: int = 16
    """Frames from one row to the next; of folders without features.json."""
    truth_fps: float = 30.0
    """Frames per second that --truth counts in. Features of another rate are an error: times are never converted."""
    bad_annotations: Literal["refuse", "leave-out"] = "refuse"
    """Test videos without features, or whose annotation does not fit the video: stop and name them, or leave the videos
    out, count and name them. An anomaly that ends at most a window beyond the last frame is cut there, and counted."""
    resamples: int = 1000
    """Of the 95 % intervals, which draw test videos with replacement."""
    timelines: int = 4
    """Pictures of abnormal test videos with score and truth over time, evenly taken from the list."""
    out: Path | None = None
    """Folder for anomaly.json, the scores of every frame and the pictures. By default nothing is written."""
    device: Device = "auto"
    """Where the head trains. auto: cuda where there is one."""

    def __post_init__(self):
        if not self.features or not self.seeds:
            raise InputError("expected at least one folder of features and one seed")
        check_options(
            self,
            steps=at_least(1),
            window=at_least(1),
            stride=at_least(1),
            truth_fps=more_than(0),
            resamples=at_least(2),
            timelines=at_least(0),
        )
