"""Where models find the evidence for a class: Grad-CAM and integrated gradients, and their share on the actor."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...kernels import clip_prep
from ...pipeline.errors import InputError
from ...pipeline.loading.clips import Clips
from ...pipeline.loading.device import resolve_device
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.sampler import ClipConfig, clip_strides, frame_numbers
from ...pipeline.ood.masks import MaskReader, open_masks
from ...pipeline.progress import Progress
from ...pipeline.shards.about import about_sample
from ...pipeline.shards.index import SampleIndex
from ..evaluation.protocols import Share, share
from ..evaluation.subject import Subject, load_subject
from .clip_features import check_subjects
from .config import LookConfig
from .feature_maps import last_map
from .gradcam import foreground_energy, grad_cam
from .integrated_gradients import integrated_gradients

METHODS = {"grad_cam": "Grad-CAM", "integrated_gradients": "integrated gradients"}
SHOWN = 6  # clips without --keys


@dataclass(frozen=True)
class Evidence:
    """Where one model finds the evidence for a class in one clip.

    Attributes:
        predicted: the class that it names.
        heat: method -> float32 (T,h,w), not negative.
    """

    predicted: str
    heat: dict[str, np.ndarray]


@dataclass(frozen=True)
class ShownClip:
    """One clip of the page.

    Attributes:
        key, label: of the video.
        frames: uint8 (T,h,w,3).
        mask: float32 (T,h,w), or None.
        evidence: model -> where it finds it.
    """

    key: str
    label: str
    frames: np.ndarray
    mask: np.ndarray | None
    evidence: dict[str, Evidence]


@dataclass(frozen=True)
class FoundEvidence:
    """What was measured.

    Attributes:
        shown: clips to draw.
        energy: (model, method) -> share of the heat on the actor, percent; empty without masks.
        area: the actor's share of the picture, percent, or None.
        gap: largest |sum of attributions less change of the logit| over the largest change.
    """

    shown: list[ShownClip]
    energy: dict[tuple[str, str], Share]
    area: Share | None
    gap: float


@dataclass
class _Collected:
    """What batches add to; values are of the rows ``measured``, each with the key of its video.

    Attributes:
        show, measured: rows of the index to draw, and to measure.
    """

    index: SampleIndex
    show: np.ndarray
    measured: np.ndarray
    shown: dict[int, ShownClip] = field(default_factory=dict)
    energy: dict[tuple[str, str], list[tuple[str, float]]] = field(default_factory=dict)
    area: list[tuple[str, float]] = field(default_factory=list)
    gap: float = 0.0

    def keyed(self, values: Tensor, rows: np.ndarray) -> list[tuple[str, float]]:
        """Key and value of the rows that are measured, where the value is finite; ``values`` (n,) are of ``rows``."""
        return [
            (self.index.key(int(row)), value)
            for row, value in zip(rows, values.cpu().tolist(), strict=True)
            if row in self.measured and np.isfinite(value)
        ]

    def add_heat(self, model: str, maps: dict[str, Tensor], mask: Tensor, rows: np.ndarray) -> None:
        """Maps by method, (n,T,h,w), under the masks of the same clips."""
        for method, heat in maps.items():
            self.energy.setdefault((model, method), []).extend(self.keyed(foreground_energy(heat, mask), rows))

    def add_shown(
        self, rows: np.ndarray, frames: Tensor, mask: Tensor | None, evidence: dict[str, list[Evidence]]
    ) -> None:
        """The clips of a batch that are drawn."""
        for n, row in enumerate(rows.tolist()):
            if row in self.show:
                self.shown[row] = ShownClip(
                    self.index.key(row),
                    self.index.classes[int(self.index.label[row])],
                    frames[n].cpu().numpy(),
                    None if mask is None else mask[n].cpu().numpy(),
                    {model: found[n] for model, found in evidence.items()},
                )

    def found(self) -> FoundEvidence:
        """All of it, with means over clips."""
        return FoundEvidence(
            [self.shown[row] for row in self.show.tolist() if row in self.shown],
            {place: _share(values) for place, values in self.energy.items()},
            _share(self.area) if self.area else None,
            self.gap,
        )


def measure_evidence(config: LookConfig) -> FoundEvidence:
    """Both maps of every clip that is shown or measured.

    Raises:
        InputError: a model, dataset, key or mask cannot be used.
    """
    subjects = [load_subject(run, trust_model_code=config.trust_model_code) for run in config.runs]
    check_subjects(subjects)
    index = SampleIndex.load(config.data)
    show = _rows_to_show(config, index)
    masks = None if config.masks is None else open_masks(config.masks, config.mask_from, value=config.mask_value)
    measured = np.arange(min(config.measured, len(index))) if masks is not None else np.zeros(0, np.int64)
    wanted = np.union1d(show, measured)
    collected = _Collected(index, show, measured)
    with (
        ClipLoader(
            config.data,
            clip=subjects[0].clip,
            batch_size=config.run.batch_size,
            views=config.run.views,
            device=resolve_device(config.run.device),
            seed=config.run.seed,
            config=config.run.loader,
            steps=-(-(int(wanted.max()) + 1) // config.run.batch_size),
        ) as loader,
        Progress("looking", len(wanted), "clips") as progress,
    ):
        for clips in loader:
            keep = np.flatnonzero(np.isin(clips.sample.cpu().numpy(), wanted))
            if len(keep):
                _add_batch(config, subjects, clips, keep, masks, collected)
                progress.advance(len(keep))
    return collected.found()


def _add_batch(
    config: LookConfig,
    subjects: Sequence[Subject],
    clips: Clips,
    keep: np.ndarray,
    masks: MaskReader | None,
    collected: _Collected,
) -> None:
    """Maps of the clips of a batch at the places ``keep``, int64 (n,), by every model."""
    part = torch.from_numpy(keep).to(clips.frames.device)
    frames, labels = clips.frames[part].contiguous(), clips.label[part]
    rows = clips.sample.cpu().numpy()[keep]
    mask = None
    if masks is not None:
        own = [_mask(config, subjects[0].clip, collected.index, clips, int(n), masks) for n in keep]
        mask = torch.from_numpy(np.stack(own)).to(frames.device)
        mask = F.adaptive_avg_pool2d(mask, (frames.shape[2], frames.shape[3]))
        collected.area += collected.keyed(mask.mean((1, 2, 3)), rows)
    evidence: dict[str, list[Evidence]] = {}
    for subject in subjects:
        maps, predicted, gap = _maps(config, subject, collected.index, frames, labels)
        collected.gap = max(collected.gap, gap)
        if mask is not None:
            collected.add_heat(subject.name, maps, mask, rows)
        evidence[subject.name] = [
            Evidence(name, {method: heat[n].cpu().numpy() for method, heat in maps.items()})
            for n, name in enumerate(predicted)
        ]
    collected.add_shown(rows, frames, mask, evidence)


def _maps(
    config: LookConfig, subject: Subject, index: SampleIndex, frames: Tensor, labels: Tensor
) -> tuple[dict[str, Tensor], list[str], float]:
    """Method -> (B,T,h,w); predicted classes; the largest gap of integrated gradients over the largest change."""
    model = subject.model.to(frames.device).requires_grad_(False)
    x = clip_prep(frames, mean=subject.mean, std=subject.std)[0]
    with torch.no_grad():
        said = model(x).argmax(1)
    if config.target == "predicted":
        target = said
    else:
        names = [index.classes[n] for n in labels.tolist()]
        unknown = next((name for name in names if name not in subject.classes), None)
        if unknown is not None:
            raise InputError(f"{config.data}: class {unknown!r} is unknown to {subject.name}; give --target predicted")
        target = torch.tensor([subject.classes.index(name) for name in names], device=x.device)
    start = torch.zeros_like(x)
    if config.baseline == "still":
        start = x[:, :, x.shape[2] // 2 : x.shape[2] // 2 + 1].expand_as(x).contiguous()
    attribution = integrated_gradients(model, x, start, target, config.steps)
    maps = {
        "grad_cam": grad_cam(model, x, target, last_map(model, x, config.places)),
        "integrated_gradients": attribution.heat,
    }
    gap = float(attribution.gap.abs().max() / attribution.change.abs().max().clamp(min=1e-12))
    return maps, [subject.classes[n] for n in said.tolist()], gap


def _rows_to_show(config: LookConfig, index: SampleIndex) -> np.ndarray:
    """int64: the named keys' rows, in their order, or the first video of each class."""
    if config.keys:
        row = {key: n for n, key in enumerate(index.keys())}
        missing = next((key for key in config.keys if key not in row), None)
        if missing is not None:
            raise InputError(f"{config.data}: no key {missing!r}; keys look like {index.key(0)!r}")
        return np.array([row[key] for key in config.keys])
    first = np.unique(np.asarray(index.label), return_index=True)[1]
    return first[:SHOWN]


def _mask(
    config: LookConfig, clip: ClipConfig, index: SampleIndex, clips: Clips, at: int, masks: MaskReader
) -> np.ndarray:
    """float32 (T,H,W): the masks of the frames and the region of one clip, in the source video's pixels."""
    source = clips.source
    assert source is not None, "the loader says where clips were cut"
    row = int(source.sample[at])
    about = about_sample(config.data, index, row)
    original, name = about["original"], str(Path(about["source"]).with_suffix(""))
    count = np.array([int(index.frames[row])])
    found = masks(name, (int(count[0]), original["height"], original["width"]))
    if found is None:
        raise InputError(f"{config.masks}: no masks of {name}; leave out --masks, or make them")
    stride = clip_strides(clip, count)
    numbers = frame_numbers(clip, source.start_frame[at : at + 1], stride, count)[0]
    top, left, height, width = source.region[at].tolist()
    rows = slice(round(top * found.shape[1]), round((top + height) * found.shape[1]))
    columns = slice(round(left * found.shape[2]), round((left + width) * found.shape[2]))
    return found[np.minimum(numbers, len(found) - 1)][:, rows, columns].astype(np.float32)


def _share(values: Sequence[tuple[str, float]]) -> Share:
    if not values:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    return share(np.array([value for _, value in values]).clip(0, 1), [key for key, _ in values])
