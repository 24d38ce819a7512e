"""Features of the demonstration's long videos, without files in between, and annotations for the heads."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ....pipeline.atomic_files import make_folder, write_atomic
from ....pipeline.progress import Progress
from ....trainer.demo.motions.long_files import key_of, split_and_index, write_annotations
from ....trainer.demo.motions.long_videos import LongMotionsConfig, Plan, Split, long_video
from ....trainer.downstream.feature_folder import RECORD
from ....trainer.evaluation.forward import Forward
from ....trainer.evaluation.subject import Subject, load_subject


@dataclass(frozen=True)
class LongVideos:
    """Videos of one task and seed.

    Attributes:
        folder: for features, lists and annotations.
        motions: what they show.
        train, test: how many; each test video is there with both appearances, free and alike.
        window, stride: frames of a row, and from one to the next.
    """

    folder: Path
    motions: LongMotionsConfig
    train: int
    test: int
    window: int
    stride: int

    def videos(self) -> Iterator[tuple[Split, int, str]]:
        """Split, index and key of every video."""
        for split, index in split_and_index(self.train, self.test):
            yield split, index, key_of(split, index)


def write_features(videos: LongVideos, encoders: Mapping[str, Path]) -> None:
    """Render the videos, and write what each encoder's last layer sees to ``folder/ENCODER``.

    Finished folders of the same videos and runs are kept.
    """
    wanted = {name: made_of(videos, run) for name, run in encoders.items()}
    missing = {name: run for name, run in encoders.items() if _made(videos.folder / name) != wanted[name]}
    if not missing:
        return
    for name in missing:
        make_folder(videos.folder / name)
    subjects = [load_subject(run, name) for name, run in missing.items()]
    forward = Forward(subjects, torch.device("cpu"), 1, 1, "off")
    plans: dict[str, Plan] = {}
    with Progress("long videos", videos.train + 2 * videos.test, "videos") as progress:
        for split, index, key in videos.videos():
            frames, _, plans[key] = long_video(videos.motions, split, index)
            clips = windows(frames, videos.window, videos.stride, subjects[0].clip.size)
            for subject, features in last_layer_inputs(forward, clips):
                np.save(videos.folder / subject.name / f"{key}.npy", features.astype(np.float32))
            progress.advance(1)
    write_annotations(videos.folder, videos.motions, plans)
    fps = float(videos.motions.fps)
    facts = {key: {"frames": videos.motions.frames, "fps": fps} for key in plans}
    record = {"window": videos.window, "stride": videos.stride, "videos": facts}
    for name in missing:
        write_atomic(videos.folder / name / RECORD, json.dumps(record | {"made_of": wanted[name]}).encode())


def windows(frames: np.ndarray, window: int, stride: int, size: int) -> Tensor:
    """uint8 (T,S,S,3) -> (windows, window, size, size, 3), resized as the loader does."""
    small = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    small = F.interpolate(small, (size, size), mode="bilinear", antialias=True, align_corners=False)
    small = small.round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
    return small.unfold(0, window, stride).permute(0, 4, 1, 2, 3).contiguous()


def last_layer_inputs(forward: Forward, clips: Tensor) -> Iterator[tuple[Subject, np.ndarray]]:
    """float32 (windows, D) of each encoder, the input of its last layer, of uint8 clips (windows, T, S, S, 3)."""
    with torch.inference_mode():
        for subject, _, features in forward.with_features(clips):
            assert features is not None
            yield subject, features.numpy()


def made_of(videos: LongVideos, run: Path) -> dict[str, object]:
    """What features are made of, as JSON has it."""
    plain = {"motions": asdict(videos.motions), "train": videos.train, "test": videos.test, "stride": videos.stride}
    return json.loads(json.dumps(plain | {"window": videos.window, "run": str(run), "at": latest(run)}))


def latest(run: Path) -> str:
    """The run's last checkpoint and when it was written: another training makes other features."""
    paths = sorted((run / "checkpoints").glob("step-*/model.safetensors"))
    return f"{paths[-1].parent.name} {paths[-1].stat().st_mtime_ns}" if paths else ""


def _made(folder: Path) -> object:
    """What the features of a folder were made of; None without a record."""
    path = folder / RECORD
    return json.loads(path.read_text()).get("made_of") if path.exists() else None
