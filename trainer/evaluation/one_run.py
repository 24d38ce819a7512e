"""The evaluation of one model, as ``unstill.evaluate``.

card = unstill.evaluate("runs/hmdb51_albar", iid="data/hmdb51/test", scuba={"places": "data/scuba_places"})
card.values()["contrasted"]
"""

import os
from collections.abc import Mapping
from pathlib import Path

from ...pipeline.loading.device import Device
from ...pipeline.loading.sampler import ViewConfig
from .config import EvaluateOptions, TestSets
from .evaluate import evaluate as evaluate_all
from .scorecard import Scorecard
from .subject import Subject, load_subject

PathLike = str | os.PathLike[str]


def evaluate(
    model: PathLike | Subject,
    *,
    iid: PathLike | None = None,
    scuba: Mapping[str, PathLike] | None = None,
    conflfg: PathLike | None = None,
    conflfg_truth: PathLike | None = None,
    others: Mapping[str, PathLike] | None = None,
    mirror: Mapping[str, str] | None = None,
    views: ViewConfig | None = None,
    batch_size: int = 64,
    device: Device = "auto",
    seed: int = 0,
    trust_model_code: bool = False,
) -> Scorecard:
    """Accuracy and static bias of one model, on datasets made by ``unstill convert``; give at least one.

    Args:
        model: a run folder (its newest checkpoint), ``RUN/best``, ``RUN/step-500``, a checkpoint, or a ``Subject``:
            any network with its classes and normalisation.
        iid: ordinary test videos.
        scuba: SCUBA sets by background; SCUFO and its shaken form are derived from them.
        conflfg: Confl-FG videos.
        conflfg_truth: CSV with the columns key and static_actor, the class of the actor that stands still.
        others: more sets by name, for plain accuracy.
        mirror: classes that turn into each other when time runs backwards, both ways.
        views: which clips of a video are shown; by default one, from its middle.
        batch_size: clips at a time.
        device: where to decode and run the model; auto: cuda where there is one.
        seed: of what is drawn at random: the SCUFO frame, the shaking, the shuffling.
        trust_model_code: allow the run to name a ``module:function``, whose code then runs.

    Returns:
        The scorecard; ``values()`` are percent by measure, ``shares`` have 95 % intervals.

    Raises:
        InputError: there is no checkpoint, no set is given, or one cannot be used.
    """
    path = lambda value: None if value is None else Path(value)  # noqa: E731
    sets = TestSets(
        iid=path(iid),
        scuba={name: Path(value) for name, value in (scuba or {}).items()},
        conflfg=path(conflfg),
        conflfg_truth=path(conflfg_truth),
        others={name: Path(value) for name, value in (others or {}).items()},
        mirror=dict(mirror or {}),
    )
    subject = model if isinstance(model, Subject) else load_subject(model, trust_model_code=trust_model_code)
    options = EvaluateOptions(views=views or ViewConfig(), batch_size=batch_size, device=device, seed=seed)
    return evaluate_all([subject], sets, options)[subject.name].card
