"""``unstill diagnose look``: where models find their evidence, as strips of frames, and its share on the actor."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
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
from ..evaluation.facts import describe_dataset, describe_runs
from ..evaluation.protocols import Share, share
from ..evaluation.subject import Subject, load_subject
from .clip_features import check_subjects
from .clip_strips import outline, overlay, strip
from .config import LookConfig
from .feature_maps import last_map
from .gradcam import foreground_energy, grad_cam
from .integrated_gradients import integrated_gradients
from .presentation import Bar, Chart, Diagnosis, Strip, Table, interval, number

METHODS = {"grad_cam": "Grad-CAM", "integrated_gradients": "integrated gradients"}
SHOWN = 6  # clips without --keys
TILE, MOST_FRAMES = 112, 8  # of a strip: side of a frame in pixels, and frames, spread evenly
SHOWS = (
    "Bright: where and when there is evidence for the class, each map scaled to its own maximum. Grad-CAM is coarse, "
    "a map of a late layer scaled up; integrated gradients are fine and noisy.",
    "Evidence on the actor is not evidence of motion: a model that reads the colour of what moves lights up there, "
    "too. Maps say where a logit comes from, not what would happen without it.",
)


@dataclass(frozen=True)
class Look:
    """What one model makes of one clip.

    Attributes:
        predicted: the class that it names.
        heat: method -> float32 (T,h,w), not negative.
    """

    predicted: str
    heat: dict[str, np.ndarray]


@dataclass(frozen=True)
class Shown:
    """One clip of the page.

    Attributes:
        key, label: of the video.
        frames: uint8 (T,h,w,3).
        mask: float32 (T,h,w), or None.
        looks: model -> what it makes of it.
    """

    key: str
    label: str
    frames: np.ndarray
    mask: np.ndarray | None
    looks: dict[str, Look]


@dataclass(frozen=True)
class Found:
    """Attributes:
    shown: clips to draw.
    energy: (model, method) -> share of the heat on the actor, percent; empty without masks.
    area: the actor's share of the picture, percent, or None.
    gap: largest |sum of attributions less change of the logit| over the largest change.
    """

    shown: list[Shown]
    energy: dict[tuple[str, str], Share]
    area: Share | None
    gap: float


def diagnose_look(config: LookConfig) -> Diagnosis:
    """Look at clips with every model.

    Raises:
        InputError: a model, dataset, key or mask cannot be used.
    """
    found = measure_look(config)
    bars = [Bar(METHODS[method], model, s.value, s.low, s.high) for (model, method), s in found.energy.items()]
    bars.sort(key=lambda bar: list(METHODS.values()).index(bar.group))
    tables, charts = [], []
    if found.area is not None:
        area = found.area.value
        rows = [
            (model, METHODS[method], interval(s.value, s.low, s.high), number(s.value / area), str(s.samples))
            for (model, method), s in found.energy.items()
        ]
        columns = ("model", "method", "on the actor, %", "times its area", "clips")
        note = f"An even map has {number(area)} % on the actor, its share of the picture."
        tables.append(Table("Heat on the actor", columns, rows, note, text=("method",)))
        charts.append(Chart("Heat on the actor, percent", bars, 100.0, note, (area, "an even map")))
    predictions = [
        (shown.key, shown.label, *(look.predicted for look in shown.looks.values())) for shown in found.shown
    ]
    models = list(found.shown[0].looks)
    tables.append(
        Table("Predictions on the clips shown", ("clip", "class", *models), predictions, text=("class", *models))
    )
    return Diagnosis(
        name="look",
        title="Where and when is the evidence?",
        shows=SHOWS,
        content={
            "energy": [
                {"model": model, "method": method, "percent": s.value, "low": s.low, "high": s.high, "clips": s.samples}
                for (model, method), s in found.energy.items()
            ],
            "area_percent": None if found.area is None else found.area.value,
            "largest_gap": found.gap,
            "clips": [
                {"key": s.key, "class": s.label, "predicted": {m: look.predicted for m, look in s.looks.items()}}
                for s in found.shown
            ],
        },
        charts=charts,
        tables=tables,
        strips=[_strip(shown) for shown in found.shown],
        facts={
            **describe_runs(config.runs),
            "data": describe_dataset(config.data),
            "evidence for": _TARGETS[config.target],
            "Grad-CAM": f"last layer with a map of {config.places} x {config.places} places or more",
            "integrated gradients": f"from {_BASELINES[config.baseline]}, {config.steps} steps; the sum misses the "
            f"change of the logit by {100 * found.gap:.2g} % at most",
        },
    )


_TARGETS = {"label": "the video's class", "predicted": "the class that the model names"}
_BASELINES = {"grey": "the mean colour", "still": "the middle frame, repeated"}


def measure_look(config: LookConfig) -> Found:
    """Both maps of every clip that is shown or measured."""
    subjects = [load_subject(run, trust_model_code=config.trust_model_code) for run in config.runs]
    check_subjects(subjects)
    index = SampleIndex.load(config.data)
    show = _rows_to_show(config, index)
    masks = None if config.masks is None else open_masks(config.masks, config.mask_from, value=config.mask_value)
    measured = np.arange(min(config.measured, len(index))) if masks is not None else np.zeros(0, np.int64)
    wanted = np.union1d(show, measured)
    shown: dict[int, Shown] = {}
    energy: dict[tuple[str, str], list[tuple[str, float]]] = {}
    area: list[tuple[str, float]] = []
    gap = 0.0
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
            rows = clips.sample.cpu().numpy()
            keep = np.flatnonzero(np.isin(rows, wanted))
            if not len(keep):
                continue
            part = torch.from_numpy(keep).to(clips.frames.device)
            frames, labels = clips.frames[part].contiguous(), clips.label[part]
            mask = None
            if masks is not None:
                mask = torch.from_numpy(
                    np.stack([_mask(config, subjects[0].clip, index, clips, int(n), masks) for n in keep])
                )
                mask = F.adaptive_avg_pool2d(mask.to(frames.device), (frames.shape[2], frames.shape[3]))
                area += _measured(mask.mean((1, 2, 3)), index, rows[keep], measured)
            looks: dict[str, list[Look]] = {}
            for subject in subjects:
                maps, predicted, missed = _maps(config, subject, index, frames, labels)
                gap = max(gap, missed)
                for method, heat in maps.items():
                    if mask is not None:
                        shares = foreground_energy(heat, mask)
                        energy.setdefault((subject.name, method), []).extend(
                            _measured(shares, index, rows[keep], measured)
                        )
                looks[subject.name] = [
                    Look(name, {method: heat[n].cpu().numpy() for method, heat in maps.items()})
                    for n, name in enumerate(predicted)
                ]
            for n, row in enumerate(rows[keep].tolist()):
                if row in show:
                    shown[row] = Shown(
                        index.key(row),
                        index.classes[int(index.label[row])],
                        frames[n].cpu().numpy(),
                        None if mask is None else mask[n].cpu().numpy(),
                        {model: found[n] for model, found in looks.items()},
                    )
            progress.advance(len(keep))
    return Found(
        [shown[row] for row in show.tolist() if row in shown],
        {place: _share(values) for place, values in energy.items()},
        _share(area) if area else None,
        gap,
    )


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


def _measured(values: Tensor, index: SampleIndex, rows: np.ndarray, measured: np.ndarray) -> list[tuple[str, float]]:
    found = values.cpu().tolist()
    return [
        (index.key(int(row)), value)
        for row, value in zip(rows, found, strict=True)
        if row in measured and np.isfinite(value)
    ]


def _share(values: Sequence[tuple[str, float]]) -> Share:
    if not values:
        return Share(float("nan"), float("nan"), float("nan"), 0, 0)
    return share(np.array([value for _, value in values]).clip(0, 1), [key for key, _ in values])


def _strip(shown: Shown) -> Strip:
    pick = np.unique(np.linspace(0, len(shown.frames) - 1, MOST_FRAMES).round().astype(int))
    large = np.stack([_large(frame) for frame in shown.frames[pick]])
    clip = large if shown.mask is None else outline(large, shown.mask[pick])
    rows = [("clip", shown.label, strip(clip))]
    for model, look in shown.looks.items():
        for method, heat in look.heat.items():
            drawn = overlay(shown.frames[pick], heat[pick], TILE)
            rows.append((f"{model}, {METHODS[method]}", f"says {look.predicted}", strip(drawn)))
    return Strip(f"{shown.label}: {shown.key}", rows)


def _large(frame: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(frame).resize((TILE, TILE), Image.Resampling.BICUBIC))
