"""What a run writes down."""

from dataclasses import dataclass

from ...pipeline.errors import InputError


@dataclass(frozen=True, kw_only=True)
class LogConfig:
    """What is written down while training."""

    every: int = 50
    """Steps from one line of metrics to the next; each value is the mean over them."""
    tensorboard: bool = False
    """Write TensorBoard events beside metrics.jsonl; needs `pip install tensorboard`."""
    wandb: bool = False
    """Send metrics to Weights & Biases; needs `pip install wandb`."""

    def __post_init__(self):
        if self.every < 1:
            raise InputError(f"log.every is {self.every}; expected a whole number of at least 1")
