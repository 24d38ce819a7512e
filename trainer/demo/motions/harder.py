"""A harder world: looks without a colour of their own, cameras that move, more movers, occlusion, changing light.

Everything here is off in the demonstration. Each choice has a random stream of its own, so that switching one on leaves
everything else of a video as it was, and the tests of one index still differ in nothing but scene and actor.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ....pipeline.options import between, check_options

Stream = Callable[[int], np.random.Generator]  # purpose -> its random numbers for one video

_CAMERA, _LIGHT, _WANDER, _COVER, _COLOUR = range(100, 105)  # purposes; the world's own are smaller
PIXEL = 1 / 32  # of the canvas, in which the camera's motion is given: a pixel of the demonstration's clips
MARGIN = 0.06  # share of the picture that a camera which turns and zooms keeps from each border


@dataclass(frozen=True, kw_only=True)
class HarderWorld:
    """What makes the world harder; the defaults change nothing."""

    looks: Literal["colour", "texture"] = "colour"
    """colour: each class has a hue of its actor and of its scene. texture: hues are random in every video, and scene
    and actor are known by texture and shape alone."""
    camera: Literal["still", "shake", "pan", "zoom", "handheld"] = "still"
    """shake: each frame moved by up to a pixel of 32. pan: a slow even move. zoom: slowly closer. handheld: a smooth
    random path that also turns and zooms a little."""
    wanderers: int = 0
    """More movers, of any look, that wander at random; the class is the motion of the one that does not."""
    cover: float = 0.0
    """Share of the picture's width that a still bar hides, in front of everything that moves."""
    light: float = 0.0
    """How far brightness and tint change in the course of a video, as a share."""

    def __post_init__(self):
        check_options(
            self,
            "harder.",
            wanderers=between(0, 4, "a few movers"),
            cover=between(0, 0.5, "a share of the width"),
            light=between(0, 0.8, "a share"),
        )


def random_hue(stream: Stream) -> tuple[float, float]:
    """Hues of a video's scene and actor, in turns, that say nothing."""
    scene, actor = stream(_COLOUR).random(2).tolist()
    return scene, actor


def wandering(world: HarderWorld, frames: int, stream: Stream) -> list[tuple[int, np.ndarray]]:
    """(actor, path float32 (4,T): x, y, angle, log radius) of each mover that wanders."""
    rng = stream(_WANDER)
    found = []
    for _ in range(world.wanderers):
        start = np.array([*rng.random(2), rng.uniform(0, 2 * np.pi), np.log(rng.uniform(0.10, 0.16))])
        steps = rng.normal(0, [[0.045], [0.045], [0.2], [0.05]], (4, frames))
        found.append((int(rng.integers(8)), (start[:, None] + np.cumsum(steps, 1)).astype(np.float32)))
    return found


def covered(planes: np.ndarray, mask: np.ndarray, scene: np.ndarray, world: HarderWorld, stream: Stream) -> None:
    """Put a still bar in front of (3,T,S,S) and of the mask (T,S,S), in place: a strip of the scene, darker."""
    size, rng = planes.shape[-1], stream(_COVER)
    width = round(world.cover * size)
    at = (np.arange(width) + int(rng.integers(size))) % size
    upright = bool(rng.integers(2))
    strip = scene[..., at] * 0.5 if upright else scene[:, at] * 0.5
    if upright:
        planes[..., at], mask[..., at] = strip[:, None], 0
    else:
        planes[:, :, at], mask[:, at] = strip[:, None], 0


def lit(planes: np.ndarray, world: HarderWorld, stream: Stream) -> None:
    """Change brightness and tint of (3,T,S,S) over time, in place."""
    frames, rng = planes.shape[1], stream(_LIGHT)
    phase, tint = rng.uniform(0, 2 * np.pi), rng.uniform(0.5, 1, 3)
    wave = np.sin(phase + np.linspace(0, np.pi * rng.uniform(0.5, 2), frames))
    planes *= (1 + world.light * tint[:, None] * wave).astype(np.float32)[:, :, None, None]


def camera_path(world: HarderWorld, frames: int, stream: Stream) -> np.ndarray:
    """float64 (T,4): shift across and down in canvas sides, turn in radians, and scale, of each frame."""
    rng, t = stream(_CAMERA), np.arange(frames)
    path = np.zeros((frames, 4))
    path[:, 3] = 1
    match world.camera:
        case "shake":
            path[:, :2] = rng.integers(-1, 2, (frames, 2)) * PIXEL
        case "pan":
            angle, speed = rng.uniform(0, 2 * np.pi), rng.uniform(0.25, 0.75) * PIXEL
            path[:, :2] = np.outer(t, (speed * np.cos(angle), speed * np.sin(angle)))
        case "zoom":
            closer = np.exp(-rng.uniform(0.005, 0.02) * t)
            path[:, 3] = closer if rng.integers(2) else closer[::-1]
        case "handheld":
            path[:, :2] = np.cumsum(rng.normal(0, 0.35 * PIXEL, (frames, 2)), 0)
            path[:, 2] = np.cumsum(rng.normal(0, 0.008, frames))
            path[:, 3] = np.exp(np.clip(np.cumsum(rng.normal(0, 0.005, frames)), -MARGIN, MARGIN)) * (1 - 2 * MARGIN)
    return path


def filmed(planes: np.ndarray, path: np.ndarray) -> np.ndarray:
    """Frames (...,T,S,S) as a camera on that path sees them, bilinear, wrapping around; float32."""
    size, centre = planes.shape[-1], (planes.shape[-1] - 1) / 2
    down, right = np.meshgrid(*(np.arange(size) - centre,) * 2, indexing="ij")
    seen = np.empty(planes.shape, np.float32)
    for t, (x, y, angle, scale) in enumerate(path):
        cos, sin = scale * np.cos(angle), scale * np.sin(angle)
        at_x, at_y = cos * right - sin * down + centre + x * size, sin * right + cos * down + centre + y * size
        left, top = np.floor(at_x).astype(int), np.floor(at_y).astype(int)
        across, below = (at_x - left).astype(np.float32), (at_y - top).astype(np.float32)
        frame = planes[..., t, :, :].astype(np.float32, copy=False)
        rows, columns = (top % size, (top + 1) % size), (left % size, (left + 1) % size)
        upper = frame[..., rows[0], columns[0]] * (1 - across) + frame[..., rows[0], columns[1]] * across
        lower = frame[..., rows[1], columns[0]] * (1 - across) + frame[..., rows[1], columns[1]] * across
        seen[..., t, :, :] = upper * (1 - below) + lower * below
    return seen
