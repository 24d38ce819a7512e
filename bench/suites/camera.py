"""`unstill bench camera`: how well a camera's motion is found and taken out of a clip, before Recast forms what moves.

On procedural clips, whose camera is known, the error in pixels: the mean distance, over nine places and all frames,
between where a place of the middle frame is in another frame and where the estimate says that it is. On videos of your
own (``--videos``) the share of the picture that stands still, as filmed and once the motion is taken out, and a picture
of how much each place changes over time.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ...pipeline.loading.sampler import ClipConfig
from ...pipeline.options import check_files
from ...trainer.demo.motions.harder import HarderWorld
from ...trainer.demo.motions.world import MotionsConfig, camera_of, video
from ...trainer.inference.predict import read_clips
from ...trainer.models.camera_motion import CameraMotion, Kind, estimate_camera, hold_still
from ..harness.record import ResultFile, quantiles, spread
from ..harness.row import Row
from ..harness.section import Chart, Section

Camera = Literal["still", "shake", "pan", "zoom", "handheld"]
KINDS: tuple[Kind, ...] = get_args(Kind)
TILE = 112  # pixels of each picture of the sheet

SECTIONS = {
    "camera": Section(
        title="The camera's motion",
        text="Found in a clip alone and taken out, before Recast forms what moves.",
        order=21,
        charts={
            "error": Chart(
                title="Error of the camera's motion",
                reading="Pixels of the clip; median over clips. As filmed: how far the camera moves things.",
                main=False,
            ),
            "still": Chart(
                title="Share of real clips' pictures that stands still",
                reading="In the frame where that is least; median over the clips of a video. Similarity.",
                main=False,
            ),
        },
    )
}


@dataclass(frozen=True, kw_only=True)
class CameraBench:
    """Estimate the camera's motion where it is known, and see what stands still in videos of your own."""

    out: Path | None = None
    """Folder of the result file; bench/results by default."""
    cameras: tuple[Camera, ...] = ("still", "shake", "pan", "zoom", "handheld")
    """How the camera of the procedural clips moves."""
    sizes: tuple[int, ...] = (32, 112)
    """Sides of the clips in pixels."""
    clips: int = 64
    """Number of procedural clips of each camera and size."""
    videos: tuple[Path, ...] = ()
    """Videos of your own."""
    views: int = 4
    """Clips of each of these, from its start to its end: 16 frames, every second, 112 pixels."""
    picture: Path | None = None
    """PNG of how much each place of these videos' clips changes over time, as filmed and afterwards."""
    seed: int = 60
    """Of the procedural videos."""

    def __post_init__(self):
        check_files("videos", self.videos)


def run(config: CameraBench) -> Path:
    """Measure, print the tables, write the result file and return its path."""
    results = ResultFile("camera", out=config.out, notes=_NOTES)
    for size in config.sizes:
        for camera in config.cameras:
            clips, truth = procedural(config, camera, size)
            for kind in KINDS:
                results.add(error_row(camera, kind, size, estimate_camera(clips, kind), truth))
    shape = ClipConfig(frames=16, stride=2, size=112, short_video="halve_stride")
    tiles = []
    for number, path in enumerate(config.videos, 1):
        clips = floating(read_clips(path, shape, config.views))
        for kind in KINDS:
            results.add(still_row(f"video {number}", kind, estimate_camera(clips, kind)))
        tiles.append(change_over_time(clips[len(clips) // 2, None]))
    if config.picture and tiles:
        Image.fromarray(np.concatenate(tiles, 1)).quantize(64).save(config.picture, optimize=True)
    results.show("the camera's motion")
    return results.finish()


_NOTES = (
    "A pixel counts as still where it differs from the middle frame by less than half of that frame's standard "
    "deviation, averaged over 3 x 3 pixels; a clip's share is that of its least still frame.",
    "trusted: the share of clips where at least half of the picture stands still, as filmed or afterwards; the others "
    "are left as they are. helped: the share of clips whose motion is taken out.",
)


def procedural(config: CameraBench, camera: Camera, size: int) -> tuple[Tensor, Tensor]:
    """Clips float32 (B,3,T,size,size) of a camera, and its true motion (B,T,3,3) as ``CameraMotion`` gives it."""
    world = MotionsConfig(seed=config.seed, size=max(64, size), harder=HarderWorld(camera=camera))
    filmed = floating(torch.from_numpy(np.stack([video(world, "train", i)[0] for i in range(config.clips)])))
    t = filmed.shape[2]
    small = F.interpolate(filmed.transpose(1, 2).flatten(0, 1), (size, size), mode="area")
    to_world = torch.from_numpy(np.stack([world_matrices(camera_of(world, "train", i)) for i in range(config.clips)]))
    truth = torch.linalg.inv(to_world) @ to_world[:, t // 2, None]
    return small.view(-1, t, 3, size, size).transpose(1, 2), truth.float()


def world_matrices(path: np.ndarray) -> np.ndarray:
    """(T,3,3): from places in a frame to places in the world, sides going from -1 to 1; path as ``camera_path``."""
    x, y, angle, scale = path.T
    matrices = np.tile(np.eye(3), (len(path), 1, 1))
    matrices[:, 0, 0] = matrices[:, 1, 1] = scale * np.cos(angle)
    matrices[:, 1, 0] = scale * np.sin(angle)
    matrices[:, 0, 1] = -matrices[:, 1, 0]
    matrices[:, 0, 2], matrices[:, 1, 2] = 2 * x, 2 * y
    return matrices


def pixel_errors(found: Tensor, truth: Tensor, size: int) -> Tensor:
    """(B,): mean distance in pixels, over nine places and all frames; matrices (B,T,3,3)."""
    at = torch.tensor([[x, y, 1.0] for x in (-0.8, 0, 0.8) for y in (-0.8, 0, 0.8)])
    one, other = (matrices @ at.T for matrices in (found, truth))
    apart = one[..., :2, :] / one[..., 2:, :] - other[..., :2, :] / other[..., 2:, :]
    return apart.norm(dim=2).mean((1, 2)) * size / 2


def error_row(camera: Camera, kind: Kind, size: int, found: CameraMotion, truth: Tensor) -> Row:
    """How far off the estimate is."""
    before = pixel_errors(torch.eye(3).expand_as(truth), truth, size)
    return Row(
        title=f"{camera}, {size} pixels, {kind}: error",
        **spread(quantiles(pixel_errors(found.matrices, truth, size).tolist())),
        unit="pixels",
        better="lower",
        figure="error",
        label=kind,
        group=f"{camera}, {size} pixels",
        detail=f"as filmed {before.median():.2f}",
        facts={"camera": camera, "kind": kind, "size": size, "as_filmed": round(float(before.median()), 3)}
        | shares(found),
    )


def still_row(name: str, kind: Kind, found: CameraMotion) -> Row:
    """How much of a real video's picture stands still."""
    return Row(
        title=f"{name}, {kind}: stands still afterwards",
        **spread(quantiles((100 * torch.maximum(found.still, found.still_before)).tolist())),
        unit="percent",
        better="higher",
        detail=f"as filmed {100 * found.still_before.median():.0f}",
        figure="still" if kind == "similarity" else "",
        label=name,
        facts={"video": name, "kind": kind} | shares(found),
    )


def shares(found: CameraMotion) -> dict[str, float]:
    """Medians of the shares that stand still, and shares of the clips that are trusted and helped; percent."""
    still = {"still_as_filmed": found.still_before.median(), "still_after": found.still.median()}
    clips = {"trusted": found.trusted.float().mean(), "helped": found.helps.float().mean()}
    return {name: round(100 * float(share), 1) for name, share in (still | clips).items()}


def change_over_time(clips: Tensor) -> np.ndarray:
    """uint8 (2 TILE,TILE,3): standard deviation over time of each place of one clip, as filmed above, steady below."""
    found = estimate_camera(clips, "similarity")
    steady = torch.where(found.helps.view(-1, 1, 1, 1, 1), hold_still(clips, found.matrices), clips)
    maps = [F.interpolate(each.mean(1).std(1)[None], (TILE, TILE), mode="area")[0, 0] for each in (clips, steady)]
    brightest = torch.quantile(maps[0], 0.98).clamp(min=1e-6)
    return np.concatenate([_coloured((one / brightest).clamp(0, 1).numpy()) for one in maps], 0)


def _coloured(values: np.ndarray) -> np.ndarray:
    """uint8 (h,w,3) of values 0 to 1: from black over violet and orange to white."""
    stops, colours = (0, 0.35, 0.7, 1), ((0, 0, 0), (110, 40, 130), (245, 140, 40), (255, 250, 220))
    return np.stack([np.interp(values, stops, channel) for channel in zip(*colours, strict=True)], -1).astype(np.uint8)


def floating(frames: Tensor) -> Tensor:
    """uint8 (B,T,h,w,3) as float32 (B,3,T,h,w), 0 to 1."""
    return frames.permute(0, 4, 1, 2, 3).float() / 255
