"""When a run saves, what it keeps, and what it does with what it finds."""

from dataclasses import dataclass
from typing import Literal

from ...pipeline.options import at_least, check_options


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When to save, what to keep, and whether to continue."""

    every: int = 500
    """Steps from one checkpoint to the next; the last step is always saved. 0: only the last."""
    keep: int = 3
    """Newest checkpoints that are kept, besides `latest` and `best`."""
    background: bool = True
    """Write while training goes on; the step only waits for the copy of the weights."""
    resume: Literal["latest", "auto", "never"] = "latest"
    """latest: continue the run in the folder, if there is one, and refuse a damaged checkpoint. auto: fall back to the
    newest good one. never: refuse a folder that holds a run."""
    max_failed: int = 3
    """Saves in a row that may fail (a full disk, say) before the run stops."""

    def __post_init__(self):
        check_options(self, "checkpoint.", every=at_least(0), keep=at_least(1), max_failed=at_least(1))
