"""What must be told with an evaluation's numbers: which models, which datasets, how, by which program, and when."""

import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from unstill import __version__

from ...pipeline.errors import InputError
from ...pipeline.loading.sampler import ViewConfig
from ...pipeline.shards.dataset_info import DatasetInfo
from ..checkpoints.checkpoint import read_record
from ..checkpoints.files import find_checkpoint, run_folder
from .config import PUBLISHED_VIEWS, EvaluateOptions, TestSets
from .evaluate import Evaluation
from .subject import Subject, origin_of


def told_apart(subjects: Sequence[Subject]) -> list[Subject]:
    """The models with names of their own: several checkpoints of one run are called NAME@step-N.

    Raises:
        InputError: two are still called alike: one checkpoint twice, or runs in folders of one name.
    """
    count = Counter(subject.name for subject in subjects)
    named = [
        replace(subject, name=f"{subject.name}@step-{subject.origin.step}")
        if count[subject.name] > 1 and subject.origin is not None
        else subject
        for subject in subjects
    ]
    name, times = Counter(subject.name for subject in named).most_common(1)[0]
    if times > 1:
        places = ", ".join(str(s.origin.run) for s in named if s.name == name and s.origin is not None)
        raise InputError(f"{times} models are called {name} ({places}); give each once, in folders of different names")
    return named


def evaluation_facts(
    subjects: Sequence[Subject], sets: TestSets, options: EvaluateOptions, results: Mapping[str, Evaluation]
) -> dict[str, str]:
    """Name -> text, for the terminal and every file.

    Args:
        subjects: the models.
        sets, options: what they were tested on, and how.
        results: by name of the model.
    """
    decoders = sorted({name for result in results.values() for name in result.decoders})
    scored = {name: len(found) for result in results.values() for name, found in result.predictions.items()}
    classes = sorted({len(subject.classes) for subject in subjects})
    return {
        **{f"model {subject.name}": _model(subject) for subject in subjects},
        **{f"set {name}": describe_dataset(path, scored.get(name)) for name, path in set_paths(sets).items()},
        "guessing": ", ".join(f"{100 / count:.4g} % of {count} classes" for count in classes),
        "views": describe_views(options),
        "short videos": ", ".join(f"{s.name}: {s.clip.short_video}" for s in subjects),
        "seed": str(options.seed),
        "decoder": ", ".join(decoders),
        **({"backgrounds of SCUBA and SCUFO": ", ".join(sets.scuba)} if sets.scuba else {}),
        "made": made_now(str(options.device)),
    }


def made_now(device: str) -> str:
    """Program, time and device, for whatever is measured now."""
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    return f"unstill {__version__}, {now}, on {device}"


def describe_runs(runs: Sequence[Path]) -> dict[str, str]:
    """Where the models at these paths come from, by name; nothing of their weights is read.

    Raises:
        InputError: there is no complete checkpoint at one of them.
    """
    found = {}
    for run in runs:
        checkpoint = find_checkpoint(run)
        config, _, _ = read_record(checkpoint / "config.json")
        found[f"model {run_folder(run).resolve().name}"] = str(origin_of(checkpoint, config))
    return found


def describe_views(options: EvaluateOptions) -> str:
    """Which clips of a video were shown, for people."""
    if options.views_of == "own":
        return _describe(options.views)
    sets = {name: _describe(views) for name, views in PUBLISHED_VIEWS[options.views_of].items()}
    return f"{options.views_of}: " + "; ".join(f"{name} {views}" for name, views in sets.items())


def _describe(views: ViewConfig) -> str:
    place = "squeezed to a square" if views.squeeze else f"crop {views.crop_share:g} of the short side"
    time = views.anchor if views.temporal == 1 else views.spread
    return f"{views.temporal} x {views.spatial}, {time}, {place}"


def _model(subject: Subject) -> str:
    if subject.origin is not None:
        return str(subject.origin)
    return f"{type(subject.model).__name__}, of no run, {subject.precision}"


def set_paths(sets: TestSets) -> dict[str, Path]:
    """Where each test set is, by name."""
    found = {"iid": sets.iid, **{f"scuba.{name}": path for name, path in sets.scuba.items()}, "conflfg": sets.conflfg}
    found |= {"conflfg truth": sets.conflfg_truth, **sets.others}
    return {name: path for name, path in found.items() if path is not None}


def describe_dataset(path: Path, scored: int | None = None) -> str:
    """Path, videos and the first digits of the digest; the path alone for a file or a remote dataset."""
    try:
        data = DatasetInfo.read(path)
    except InputError:
        return str(path)
    lost = "" if scored in (None, data.samples) else f", of which {data.samples - scored:,} could not be decoded"
    return f"{path}, {data.samples:,} videos{lost}, {data.digest[:12]}"
