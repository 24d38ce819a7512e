"""What the demonstration's report shows besides numbers: clips of every set, and heat maps of both models."""

import json
import os
import platform
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F

from unstill import __version__

from ...kernels import clip_prep
from ...pipeline.loading.loader import ClipLoader
from ...pipeline.loading.sampler import ViewConfig
from ...pipeline.progress import Progress
from ..config import to_dict
from ..diagnostics.feature_maps import last_map
from ..diagnostics.gradcam import foreground_energy, grad_cam
from ..evaluation.derived_clips import still_frame
from ..evaluation.protocols import Share
from ..evaluation.subject import load_subject
from .motions.files import read_mask, video_name
from .motions.world import CLASSES
from .report import GradCamExample, ReportData, SheetRow
from .settings import COLUMNS, MODELS, DemoConfig, train_configs
from .verdict import verdict

SHEET = {
    "Training": ("train", "Scene and actor go with the class in 95 % of the videos."),
    "IID": ("iid", "As in training, other videos."),
    "SCUBA": ("scuba", "A scene that training never showed."),
    "SCUFO": ("scufo", "One frame of the SCUBA video: nothing moves."),
    "Confl-FG": ("conflfg", "An unseen scene, and another class's actor standing still."),
    "Anti": ("anti", "Always another class's scene and actor."),
    "Swap": ("swap", "An unseen scene, and always another class's actor."),
}
EXAMPLES = ("left", "up", "rot_cw", "right", "zoom_in", "zoom_out")  # one Confl-FG clip each
PLACES = 8  # 8 x 8 places in all 8 frames; the last layer's 4 x 4 in 2 frames are coarser than the actor
MEASURED = 256  # clips that the mean share of heat on the actor is over


def gather(config: DemoConfig, shares: dict[str, dict[str, Share]], seconds: dict[str, float]) -> ReportData:
    """Everything that the report shows, from what the stages left in ``config.out``."""
    runs = train_configs(config)
    heat = measure_heat(config)
    return ReportData(
        verdict=verdict({name: {m: s.value for m, s in found.items()} for name, found in shares.items()}),
        results={MODELS[name]: shares[name] for name in runs},
        measures=COLUMNS,
        classes=len(CLASSES),
        metrics={MODELS[name]: read_metrics(run.out / "metrics.jsonl") for name, run in runs.items()},
        sheet=contact_sheet(config),
        examples=heat.examples,
        energy=heat.energy,
        area=heat.area,
        seconds=seconds,
        facts=[
            ("seed", str(config.seed)),
            ("videos", f"{config.train} + 5 × {config.test}"),
            ("epochs", f"{runs['albar'].epochs:g}"),
            ("device", f"{config.device}, {len(os.sched_getaffinity(0))} cores"),
            ("unstill", __version__),
            ("torch", torch.__version__),
            ("python", platform.python_version()),
        ],
        configs={MODELS[name]: json.dumps(to_dict(run), indent=1) for name, run in runs.items()},
    )


def contact_sheet(config: DemoConfig) -> list[SheetRow]:
    """One video of every class in every set; in the tests the same motion down each column."""
    rows = []
    for title, (split, meaning) in SHEET.items():
        clips = {}
        for label, name in enumerate(CLASSES):
            index = label + 8 if config.test >= 16 else label
            frames = read_video(
                config.out / "videos" / split.replace("scufo", "scuba") / f"{video_name(index, label)}.mp4"
            )
            if split == "scufo":
                key = video_name(index, label).replace("/", "_")
                frames = np.repeat(frames[still_frame([key], len(frames), config.seed)], len(frames), 0)
            clips[name] = frames
        rows.append(SheetRow(title, meaning, clips))
    return rows


@dataclass(frozen=True)
class Heat:
    """Attributes:
    examples: some clips with both models' heat.
    energy: model -> mean share of the heat on the moving actor, in percent.
    area: the actor's mean share of the picture, in percent.
    """

    examples: list[GradCamExample]
    energy: dict[str, float]
    area: float


def measure_heat(config: DemoConfig) -> Heat:
    """Both models' Grad-CAM for the right class on Confl-FG clips, where one actor moves and another stands still."""
    subjects = [load_subject(run.out, MODELS[name]) for name, run in train_configs(config).items()]
    device = torch.device(config.device)
    examples: dict[str, GradCamExample] = {}
    energy: dict[str, list[torch.Tensor]] = {subject.name: [] for subject in subjects}
    areas = []
    with (
        ClipLoader(
            config.out / "shards" / "conflfg",
            clip=subjects[0].clip,
            batch_size=64,
            views=ViewConfig(),
            device=device,
            steps=min(MEASURED, config.test) // 64 or 1,
        ) as loader,
        Progress("Grad-CAM", min(MEASURED, config.test), "clips") as progress,
    ):
        for clips in loader:
            keys = [loader.index.key(row) for row in clips.sample.tolist()]
            masks = torch.from_numpy(np.stack([_mask(config, key) for key in keys])).to(device)
            masks = F.adaptive_avg_pool2d(masks, (clips.frames.shape[2], clips.frames.shape[3]))
            areas.append(masks.mean((1, 2, 3)))
            heats, predicted = {}, {}
            for subject in subjects:
                model = subject.model.to(device).requires_grad_(False)
                x = clip_prep(clips.frames.contiguous(), mean=subject.mean, std=subject.std)[0]
                labels = torch.tensor([subject.classes.index(loader.index.classes[n]) for n in clips.label.tolist()])
                heat = grad_cam(model, x, labels.to(device), last_map(model, x, PLACES))
                with torch.no_grad():
                    predicted[subject.name] = [subject.classes[n] for n in model(x).argmax(1).tolist()]
                heats[subject.name] = heat.cpu().numpy()
                energy[subject.name].append(foreground_energy(heat, masks))
            for row, key in enumerate(keys):
                name = key.rsplit("_", 1)[0]
                if name in EXAMPLES and name not in examples:
                    examples[name] = GradCamExample(
                        title=name.replace("_", " "),
                        frames=clips.frames[row].cpu().numpy(),
                        mask=masks[row].cpu().numpy(),
                        heat={model: heat[row] for model, heat in heats.items()},
                        predicted={model: names[row] for model, names in predicted.items()},
                    )
            progress.advance(len(keys))
    return Heat(
        examples=[examples[name] for name in EXAMPLES if name in examples],
        energy={name: 100 * float(torch.cat(found).nanmean()) for name, found in energy.items()},
        area=100 * float(torch.cat(areas).mean()),
    )


def read_metrics(path: Path) -> list[dict]:
    """The records of a metrics.jsonl."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def read_video(path: Path) -> np.ndarray:
    """All frames of a small video, uint8 (T,H,W,3)."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _mask(config: DemoConfig, key: str) -> np.ndarray:
    """float32 (T,S,S) in [0, 1]: the moving actor in a Confl-FG video."""
    name, number = key.rsplit("_", 1)
    return read_mask(config.out / "videos" / "masks" / "conflfg" / name / f"{number}.png").astype(np.float32) / 255
