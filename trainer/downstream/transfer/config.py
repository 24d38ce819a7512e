"""Options of `unstill transfer`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from ....pipeline.errors import InputError
from ....pipeline.loading.device import Device
from ....pipeline.loading.sampler import ViewConfig
from ....pipeline.options import at_least, check_options


@dataclass(frozen=True, kw_only=True)
class TransferConfig:
    """Accuracy on other data sets: of a linear layer on frozen features, or of fine-tuned runs; mean over splits."""

    models: Annotated[tuple[str, ...], Positional, arg(metavar="MODEL")]
    """Run folders, RUN/best, RUN/step-500, folders made by `unstill export`, or `hf:ORG/NAME`. With several, each after
    the first is compared with the first: give the baseline first. With --fine-tuned: one run for each split."""
    test: tuple[Path, ...]
    """Dataset folders of the test videos, one for each split."""
    train: tuple[Path, ...] = ()
    """Dataset folders of the training videos, in the order of --test; not with --fine-tuned."""
    fine_tuned: bool = False
    """The models are runs that were fine-tuned on the splits, in the order of --test: measure them as they are."""
    layer: str = "penultimate"
    """Dotted name of the layer that the linear layer reads, averaged over time, space and views; penultimate: what the
    last layer sees."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """Which clips of a video are shown."""
    batch_size: int = 64
    """Clips at a time."""
    device: Device = "auto"
    """Where to decode and run the models. auto: cuda where there is one."""
    out: Path | None = None
    """File for the results, .json. By default nothing is written."""
    trust_model_code: bool = False
    """Run the code that a model's config.json names, where its network is a `module:function`."""

    def __post_init__(self):
        check_options(self, batch_size=at_least(1))
        if not self.models or not self.test:
            raise InputError("expected at least one model, and one data set in --test")
        if self.fine_tuned:
            if self.train or len(self.models) != len(self.test):
                raise InputError(
                    f"{len(self.models)} fine-tuned runs, {len(self.test)} splits in --test: expected one run for each "
                    "split, and no --train"
                )
        elif len(self.train) != len(self.test):
            raise InputError(
                f"{len(self.train)} data sets in --train, {len(self.test)} in --test: expected one of each for a split"
            )
