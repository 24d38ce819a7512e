"""What to test a model on, and how."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from ...pipeline.errors import InputError
from ...pipeline.loading.device import Device
from ...pipeline.loading.loader_config import LoaderConfig
from ...pipeline.loading.sampler import ViewConfig


@dataclass(frozen=True, kw_only=True)
class TestSets:
    """Which datasets to test on, all made by `unstill convert`."""

    __test__ = False  # not a test case, whatever pytest makes of the name

    iid: Path | None = None
    """Ordinary test videos."""
    scuba: dict[str, Path] = field(default_factory=dict)
    """SCUBA sets by background: `--scuba places PATH stripe PATH`. SCUFO and its shaken form are derived from them."""
    conflfg: Path | None = None
    """Confl-FG videos."""
    conflfg_truth: Path | None = None
    """CSV with the columns key and static_actor: the class of the actor that stands still in each Confl-FG video."""
    others: dict[str, Path] = field(default_factory=dict)
    """More sets by name, for plain accuracy: `--others anti PATH swap PATH`."""
    mirror: dict[str, str] = field(default_factory=dict)
    """Classes that turn into each other when time runs backwards: `--mirror left right right left`."""


# name -> the views of each source of clips; "others" also where a source has none of its own
PUBLISHED_VIEWS: dict[str, dict[str, ViewConfig]] = {
    # from the first frame, resized to 256 and cut to 224: the same for every set
    "albar": {"others": ViewConfig(anchor="first", crop_share=0.875)},
    # as in StillMix's configurations: 4 x 3 on ordinary videos, 1 x 3 on SCUBA and SCUFO, Confl-FG squeezed; others as
    # its ARAS
    "stillmix": {
        "iid": ViewConfig(temporal=4, spatial=3, spread="middles"),
        "scuba": ViewConfig(spatial=3),
        "conflfg": ViewConfig(squeeze=True),
        "others": ViewConfig(crop_share=0.875),
    },
}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """How to run an evaluation; views and the short-video rule change numbers, the rest does not."""

    views_of: Annotated[Literal["own", "albar", "stillmix"], arg(name="views")] = "own"
    """Which clips of a video are shown; probabilities are averaged over them. albar, stillmix: those of the paper's
    code, set by set; own: those of the options views.temporal to views.squeeze."""
    views: ViewConfig = field(default_factory=ViewConfig)
    """Which clips of a video are shown, where no paper's are."""
    batch_size: int = 64
    """Clips at a time."""
    device: Device = "auto"
    """Where to decode and run the models. auto: cuda where there is one."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the networks. auto: on a GPU, for a set of 500 batches and more."""
    seed: int = 0
    """Of what is drawn at random: the frame that SCUFO repeats, the shaking, the shuffling; `hat` draws nothing."""
    probe_features: bool = True
    """Probe the features of SCUFO clips, too, not only the logits; minutes on a CPU for tens of thousands of videos."""
    loader: LoaderConfig = field(default_factory=LoaderConfig)
    """How hard the loader works."""

    def __post_init__(self) -> None:
        if self.views_of != "own" and self.views != ViewConfig():
            raise InputError(f"--views {self.views_of} says which clips are shown; give it without --views.*")

    def views_on(self, source: str) -> ViewConfig:
        """The views of the clips that are made from a source: iid, scuba, conflfg or another set."""
        if self.views_of == "own":
            return self.views
        published = PUBLISHED_VIEWS[self.views_of]
        return published.get(source, published["others"])


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Accuracy and static bias of one or more trained models, on the sets that you name.

    SCUFO, its shaken form, reversed and shuffled clips are made from the SCUBA and IID sets while decoding. Runs that
    are called NAME_seed0, NAME_seed1, ... are also summarised as mean and standard deviation.
    """

    runs: Annotated[tuple[Path, ...], Positional] = ()
    """Run folders or checkpoints: RUN stands for its newest one, RUN/best for the one with the highest validation
    score, RUN/step-500 for that of a step. Each model is called as its run's folder is."""
    logits: Path | None = None
    """Instead of models: a folder with saved logits of any framework, files MODEL.SET.npz or .csv, where SET is iid,
    scuba.BACKGROUND, scufo.BACKGROUND, conflfg, ... Sets that pair are joined by key; views and the like are printed
    from facts.json there."""
    sets: Annotated[TestSets, arg(name="")] = field(default_factory=TestSets)
    """What to test on."""
    run: Annotated[EvaluateOptions, arg(name="")] = field(default_factory=EvaluateOptions)
    """How to run the models."""
    trust_model_code: bool = False
    """Run the code that a run's config.json names, where its network is a `module:function`."""
    out: Path | None = None
    """Folder for evaluation.json, .csv, .tex, .html and the predictions; by default nothing is written."""
