"""How biased is a model: one pass over each test set, for several models at once, into their scorecards.

    subjects = [load_subject("runs/albar"), load_subject("runs/baseline/best")]
    results = evaluate(subjects, TestSets(iid=..., scuba={"places": ...}), EvaluateOptions(device="cpu"))
    results["albar"].card.values()["contrasted"]

Every video is decoded once; SCUFO, shaken, reversed and shuffled clips are made from the decoded frames, and all models
see the same ones.
"""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...pipeline.errors import InputError
from ...pipeline.loading.cpu_threads import leave_a_core_for_decoding
from ...pipeline.loading.device import resolve_device
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.sampler import ClipConfig, ViewConfig
from ...pipeline.progress import Progress
from ...pipeline.shards.index import SampleIndex
from ..distributed import ALONE, Ranks
from ..memory_check import is_out_of_memory
from ..models.observed_network import feature_width
from .config import EvaluateOptions, TestSets
from .derived_clips import ClipTransform, as_filmed
from .forward import Forward
from .measures import CLIP_SETS, WITH_FEATURES
from .predictions import Predictions
from .scorecard import Scorecard, scorecard
from .subject import Subject
from .truth import labels_from_csv


@dataclass(frozen=True)
class Evaluation:
    """One model's results: its scorecard, the predictions it was made from, by name of the set, and what decoded."""

    card: Scorecard
    predictions: dict[str, Predictions]
    decoders: tuple[str, ...] = ()


def evaluate(
    subjects: Sequence[Subject], sets: TestSets, options: EvaluateOptions, ranks: Ranks = ALONE
) -> dict[str, Evaluation]:
    """Test every model on every set.

    Args:
        subjects, sets, options: what is tested on what, and how.
        ranks: the processes that share the work; each gets the results.

    Returns:
        The results by name of the model.

    Raises:
        InputError: two models have one name or different clips, a set's classes are not the model's, a video cannot be
            decoded, or sets that must pair do not.
    """
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise InputError(f"models {', '.join(names)}: two have one name; give folders with different names")
    passes, truth = clips_of(sets, options.seed), sets.conflfg_truth
    still_actor = {s.name: labels_from_csv(truth, "static_actor", s.classes) if truth else None for s in subjects}
    total = sum(len(SampleIndex.load(path)) * len(transforms) for path, transforms in passes)
    found: dict[str, dict[str, Predictions]] = {name: {} for name in names}
    decoders: set[str] = set()
    show = Progress("evaluating", total, "clips") if ranks.first else nullcontext()
    with show as progress, leave_a_core_for_decoding(resolve_device(options.device)):
        for path, transforms in passes:
            probed = [name for name in transforms if options.probe_features and name.partition(".")[0] in WITH_FEATURES]
            for (subject, transform), predictions in predict(
                *(subjects, path, transforms, options),
                progress=progress,
                decoders=decoders,
                ranks=ranks,
                features_of=probed,
            ).items():
                found[subject][transform] = predictions
    results = {}
    for name, static in still_actor.items():
        card = scorecard(found[name], static_label=static, mirror=sets.mirror or None)
        results[name] = Evaluation(card, found[name], tuple(sorted(decoders)))
    return results


def clips_of(sets: TestSets, seed: int) -> list[tuple[Path, dict[str, ClipTransform]]]:
    """Each dataset with the test clips that are made from it (``measures.CLIP_SETS``), by name of the set.

    Raises:
        InputError: no dataset is given, or a name has a dot.
    """
    dotted = next((name for name in (*sets.scuba, *sets.others) if "." in name), None)
    if dotted is not None:
        raise InputError(f"set {dotted!r}: the names of sets and backgrounds take no dot; give another")

    def seeded(make: Callable[[Tensor, Sequence[str], int], Tensor]) -> ClipTransform:
        return lambda frames, keys: make(frames, keys, seed)

    def made_from(source: str, suffix: str = "") -> dict[str, ClipTransform]:
        known = (clips for clips in CLIP_SETS if clips.source == source)
        return {clips.name + suffix: seeded(clips.make) for clips in known}

    found: list[tuple[Path, dict[str, ClipTransform]]] = []
    if sets.iid is not None:
        found.append((sets.iid, made_from("iid")))
    for background, path in sets.scuba.items():
        found.append((path, made_from("scuba", f".{background}")))
    if sets.conflfg is not None:
        found.append((sets.conflfg, made_from("conflfg")))
    for name, path in sets.others.items():
        found.append((path, {name: as_filmed}))
    if not found:
        raise InputError("no test set given; give at least one of --iid, --scuba, --conflfg, --others")
    return found


def source_of(name: str) -> str:
    """Which of ``TestSets`` a prediction set is made from: iid, scuba, conflfg, or others."""
    return next((clips.source for clips in CLIP_SETS if clips.name == name.partition(".")[0]), "others")


def check_dataset(subject: Subject, dataset: Path, options: EvaluateOptions, ranks: Ranks = ALONE) -> int:
    """Open a dataset as ``predict`` will, and close it again; returns its number of videos.

    Raises:
        InputError: there is none, it cannot be decoded on this device, or it has a class that the model does not know.
    """
    with _loader(dataset, subject.clip, options, ranks) as loader:
        _labels(subject, loader.index, dataset)
        return len(loader.index)


def predict(
    subjects: Sequence[Subject],
    dataset: Path,
    transforms: Mapping[str, ClipTransform],
    options: EvaluateOptions,
    *,
    progress: Progress | None = None,
    decoders: set[str] | None = None,
    ranks: Ranks = ALONE,
    uses: int = 1,
    give_up: Callable[[], bool] = lambda: False,
    features_of: Collection[str] = (),
) -> dict[tuple[str, str], Predictions]:
    """What every model says about every form of a dataset's clips; each video is decoded once.

    Args:
        subjects: models that take clips of one shape.
        dataset: folder made by ``unstill convert``.
        transforms: name of a prediction set -> how its clips are made from the dataset's.
        options: views, batch size, device.
        progress: advanced by one for every clip of every form.
        decoders: gets the name of the loader's decoder.
        ranks: the processes that share the work; each gets all predictions.
        uses: how often the same networks will be asked, for the choice whether compiling them pays.
        give_up: asked between batches; the work ends where it says so.
        features_of: the prediction sets that come with the features of models whose last layer is known.

    Returns:
        (name of the model, name of the set) -> predictions, in the dataset's order. With one view the logits are
        the model's; with several they are the logarithm of the mean probability.

    Raises:
        InputError: the models take different clips, the dataset has a class that a model does not know, memory ran
            out, or the work was given up. Where one rank fails, all do.
    """
    clip = subjects[0].clip
    if any(subject.clip != clip for subject in subjects):
        raise InputError("the models take clips of different shapes; evaluate them one by one")
    shown = options.views_on(source_of(next(iter(transforms))))
    views = shown.temporal * shown.spatial
    found, failure = None, None
    try:
        found = _sums(subjects, dataset, transforms, options, progress, ranks, uses, give_up, shown, features_of)
    except Exception as error:
        failure = error
    if ranks.any(failure is not None):
        if failure is not None and is_out_of_memory(failure):
            batch = f"--batch-size {options.batch_size}"
            raise InputError(f"{dataset}: out of memory with {batch}; give a smaller one") from failure
        raise failure or InputError(f"{dataset}: another process could not evaluate its part; see its message")
    assert found is not None
    ranks.add(*found.sums.values(), *found.features.values(), found.seen)
    if decoders is not None:
        decoders.add(found.decoder)
    index, seen = found.index, found.seen
    complete = np.flatnonzero(seen == views)  # the loader may have been allowed to drop some
    if len(complete) < len(index) and ranks.first:
        lost = f"{dataset}: {len(index) - len(complete)} of {len(index)} videos could not be decoded and do not count"
        print(f"warning: {lost}", file=sys.stderr, flush=True)
    keys = index.keys()
    return {
        (subject, name): Predictions(
            tuple(keys[row] for row in complete),
            found.targets[subject][complete],
            _as_logits(total[complete], views),
            next(s.classes for s in subjects if s.name == subject),
            name,
            (found.features[subject, name][complete] / views).astype(np.float32)
            if (subject, name) in found.features
            else None,
        )
        for (subject, name), total in found.sums.items()
    }


@dataclass(frozen=True)
class _Sums:
    """What one rank found: sums over the views that it has seen, for every video of the dataset."""

    index: SampleIndex
    targets: dict[str, np.ndarray]
    sums: dict[tuple[str, str], np.ndarray]
    features: dict[tuple[str, str], np.ndarray]
    seen: np.ndarray
    decoder: str


def _loader(
    dataset: Path, clip: ClipConfig, options: EvaluateOptions, ranks: Ranks, views: ViewConfig | None = None
) -> ClipLoader:
    device = ranks.device if ranks.world_size > 1 else resolve_device(options.device)
    return ClipLoader(
        dataset,
        clip=clip,
        batch_size=-(-options.batch_size // ranks.world_size) * ranks.world_size,
        views=views or options.views,
        device=device,
        seed=options.seed,
        rank=ranks.rank,
        world_size=ranks.world_size,
        config=options.loader,
    )


def _sums(
    subjects: Sequence[Subject],
    dataset: Path,
    transforms: Mapping[str, ClipTransform],
    options: EvaluateOptions,
    progress: Progress | None,
    ranks: Ranks,
    uses: int,
    give_up: Callable[[], bool],
    shown: ViewConfig,
    features_of: Collection[str],
) -> _Sums:
    views = shown.temporal * shown.spatial
    with _loader(dataset, subjects[0].clip, options, ranks, shown) as loader, torch.inference_mode():
        index = loader.index
        targets = {subject.name: _labels(subject, index, dataset) for subject in subjects}
        sums = {
            (subject.name, name): np.zeros((len(index), len(subject.classes)), np.float64)
            for subject in subjects
            for name in transforms
        }
        features = {
            (s.name, name): np.zeros((len(index), feature_width(s.model, s.head)), np.float64)
            for s in subjects
            for name in transforms
            if s.head and name in features_of
        }
        seen = np.zeros(len(index), np.int64)
        batch = -(-options.batch_size // ranks.world_size)
        forward = Forward(subjects, loader.device, batch, uses * len(loader) * len(transforms), options.compile)
        for clips in loader:
            if give_up():
                raise InputError(f"{dataset}: given up, for the run is to stop")
            rows = clips.sample.cpu().numpy()
            keys = [index.key(row) for row in rows.tolist()]
            for name, transform in transforms.items():
                frames = transform(clips.frames, keys).contiguous()
                for subject, logits, seen_by_head in forward.with_features(frames, name in features_of):
                    scores = logits if views == 1 else logits.softmax(1)
                    np.add.at(sums[subject.name, name], rows, scores.cpu().numpy())
                    if seen_by_head is not None:
                        np.add.at(features[subject.name, name], rows, seen_by_head.cpu().numpy())
            np.add.at(seen, rows, 1)
            if progress is not None:
                progress.advance(len(rows) * len(transforms) * ranks.world_size // views)
    return _Sums(index, targets, sums, features, seen, loader.decoder.name)


def _labels(subject: Subject, index: SampleIndex, dataset: Path) -> np.ndarray:
    """int64 (N,): the dataset's labels as positions in the model's classes."""
    position = {name: n for n, name in enumerate(subject.classes)}
    unknown = [name for name in index.classes if name not in position]
    if unknown:
        known = ", ".join(subject.classes[:3]) + (", ..." if len(position) > 3 else "")
        raise InputError(
            f"{dataset}: class {unknown[0]!r} is none of the {len(position)} that {subject.name} knows ({known}); "
            "expected videos of those classes, converted with --classes TRAINING_SET/dataset.json"
        )
    return np.array([position[name] for name in index.classes], np.int64)[np.asarray(index.label)]


def _as_logits(total: np.ndarray, views: int) -> np.ndarray:
    if views == 1:
        return total.astype(np.float32)
    return np.log(np.maximum(total / views, np.finfo(np.float32).tiny)).astype(np.float32)
