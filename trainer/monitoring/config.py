"""Which metrics a run logs."""

from dataclasses import dataclass

from ...pipeline.options import at_least, check_options


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """Which metrics are logged, and where to."""

    every: int = 50
    """Steps from one line of metrics to the next; each value is the mean over them."""
    tensorboard: bool = False
    """Also write TensorBoard events; needs `pip install tensorboard`."""
    wandb: bool = False
    """Also send metrics to Weights & Biases; needs `pip install wandb`."""

    def __post_init__(self):
        check_options(self, "log.", every=at_least(1))
