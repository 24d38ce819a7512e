"""The procedural biased dataset "motions": eight motions whose scene and actor merely correlate with the class.

A video shows one actor (a shape with its own hue) moving over one static scene (a texture). What the class *is* can
only be seen in the motion; what a single frame shows predicts the class 95 % of the time in training, and is swapped
in the tests. Masks are exact because the renderer knows them.

Everything is a pure function of (seed, split, index). Splits that share a stream (all tests) share the actor's motion,
appearance and noise at equal index, so they pair by name.

    video(MotionsConfig(), "scuba", 17)  ->  frames uint8 (T,H,W,3), mask uint8 (T,H,W), Cast

The canvas is a torus (everything wraps around) with sides of length 1 and y pointing down. Position, angle and size
at a uniformly random frame are distributed alike in all classes: one frame alone says nothing about the motion. At a
known frame it does: who zooms in is small at the first and large at the last, so static clips repeat a random frame.
"""

from collections.abc import Sequence
from colorsys import hsv_to_rgb
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .harder import HarderWorld, camera_path, covered, filmed, lit, random_hue, wandering

CLASSES = ("left", "right", "up", "down", "rot_cw", "rot_ccw", "zoom_in", "zoom_out")
MIRROR_CLASS = {  # what each motion becomes when time runs backwards
    "left": "right", "right": "left", "up": "down", "down": "up",
    "rot_cw": "rot_ccw", "rot_ccw": "rot_cw", "zoom_in": "zoom_out", "zoom_out": "zoom_in",
}  # fmt: skip
SPLITS = {
    "train": "scene and actor follow the class with the training rates",
    "iid": "as train, other videos",
    "scuba": "a scene never seen in training; the actor as in iid",
    "conflfg": "a scene never seen in training, and another class's actor standing still beneath the moving one",
    "anti": "always another class's scene and another class's actor",
    "swap": "a scene never seen in training and always another class's actor",
    "unbiased": "scene and actor independent of the class",
}
TESTS = ("iid", "scuba", "conflfg", "anti", "swap")

STEP = 0.055  # canvas sides per frame, for the four translations
TURN = 0.28  # radians per frame, for the two rotations
RADIUS = (0.17, 0.30)  # of the actor, in canvas sides; log-uniform
SHARD_QUALITY = {"vp9": 31}  # constant rate factor by codec: results are those of shards converted with it


@dataclass(frozen=True, kw_only=True)
class MotionsConfig:
    """What to render and where."""

    out: Path = Path("runs/demo/videos")
    """Folder for OUT/<split>/<class>/<id>.mp4, OUT/masks/<split>/<class>/<id>.png and OUT/truth/<split>.csv."""
    seed: int = 0
    """Seed of every random choice; train and test videos never share random numbers."""
    train: int = 1024
    """Number of training videos."""
    test: int = 512
    """Number of videos in each test split."""
    splits: tuple[str, ...] = ("train", *TESTS)
    """Which splits to render, of train, iid, scuba, conflfg, anti, swap, unbiased."""
    size: int = 64
    """Side of the square frames in pixels, a multiple of 16."""
    frames: int = 8
    """Frames in each video."""
    fps: int = 8
    """Frames a second that the files declare."""
    scene_rate: float = 0.95
    """How often the scene follows the class in train and iid; 0.125 is no correlation."""
    actor_rate: float = 0.95
    """How often the actor follows the class in train, iid, scuba and conflfg; 0.125 is no correlation."""
    scene_saturation: float = 0.2
    """How colourful scenes are, 0 to 1; a strong scene drowns the actor's bias."""
    noise: float = 6.0
    """Standard deviation of the Gaussian noise on every pixel of every frame, in grey levels of 255."""
    quality: int = 12
    """VP9's constant rate factor, 0 (best) to 63; low because these files are encoded again when converted."""
    workers: int = 0
    """Threads that render and encode; 0 = one for each core."""
    harder: HarderWorld = field(default_factory=HarderWorld)
    """Looks, cameras, movers and light that the demonstration does without."""

    def videos(self, split: str) -> int:
        """Number of videos in ``split``."""
        return self.train if split == "train" else self.test


class Cast(NamedTuple):
    """Who plays in a video: positions in ``CLASSES``, scenes 8..15 being those never seen in training."""

    label: int
    scene: int
    actor: int
    static_actor: int | None  # only in conflfg


class Pose(NamedTuple):
    """Where the actor is in each frame: float32 arrays (T,), in canvas sides and radians."""

    x: np.ndarray
    y: np.ndarray
    angle: np.ndarray
    radius: np.ndarray


# ---------------------------------------------------------------------------------------------- random choices
# Each purpose has its own stream, so that a split which changes one thing leaves all others as they are.
_CAST, _MOTION, _LOOK, _SCENE, _NOISE, _STATIC = range(6)


def _stream(config: MotionsConfig, split: str, index: int, purpose: int) -> np.random.Generator:
    return np.random.Generator(np.random.SFC64([config.seed, split != "train", index, purpose]))


def cast(config: MotionsConfig, split: str, index: int) -> Cast:
    """Class, scene and actor of one video. The class is ``index mod 8``; equal index, equal draws in every test."""
    rng = _stream(config, split, index, _CAST)
    label = index % 8
    scene_draw, actor_draw = rng.random(2)
    # the third is drawn for no split: without it every later draw, and so every video, would be another
    wrong_scene, wrong_actor, _, static_actor = ((label + k) % 8 for k in rng.integers(1, 8, 4).tolist())
    unseen_scene = int(rng.integers(8, 16))

    scene_rate = 1 / 8 if split == "unbiased" else config.scene_rate
    actor_rate = 1 / 8 if split == "unbiased" else config.actor_rate
    scene = label if scene_draw < scene_rate else wrong_scene
    actor = label if actor_draw < actor_rate else wrong_actor
    match split:
        case "train" | "iid" | "unbiased":
            return Cast(label, scene, actor, None)
        case "scuba":
            return Cast(label, unseen_scene, actor, None)
        case "conflfg":
            return Cast(label, unseen_scene, actor, static_actor)  # as published: only the foregrounds conflict
        case "anti":
            return Cast(label, wrong_scene, wrong_actor, None)
        case "swap":
            return Cast(label, unseen_scene, wrong_actor, None)
    raise ValueError(f"split {split!r} is not one of {', '.join(SPLITS)}")


def pose(config: MotionsConfig, split: str, index: int) -> Pose:
    """The actor's path in one video; at a uniformly random frame it is distributed alike in all classes."""
    label, frames, rng = index % 8, config.frames, _stream(config, split, index, _MOTION)
    x, y = rng.random(2)
    angle, start = rng.uniform(0, 2 * np.pi), rng.random()
    low, high = np.log(RADIUS)
    log_radius, speed = rng.uniform(low, high), rng.uniform(0.8, 1.2)

    t = np.arange(frames)
    xs, ys, angles, log_radii = (np.full(frames, value) for value in (x, y, angle, log_radius))
    match CLASSES[label]:
        case "left":
            xs = x - STEP * speed * t
        case "right":
            xs = x + STEP * speed * t
        case "up":
            ys = y - STEP * speed * t
        case "down":
            ys = y + STEP * speed * t
        case "rot_cw":  # y points down, so growing angles turn clockwise
            angles = angle + TURN * speed * t
        case "rot_ccw":
            angles = angle - TURN * speed * t
        case "zoom_in" | "zoom_out" as name:
            # a full sweep whatever the speed: only then is the size at a random frame log-uniform, as in the others
            log_radii = low + (high - low) * (t + start) / frames
            log_radii = log_radii if name == "zoom_in" else log_radii[::-1]
    return Pose(*(np.asarray(v, np.float32) for v in (xs % 1, ys % 1, angles, np.exp(log_radii))))


# --------------------------------------------------------------------------------------------------- actors
def _box(x0: float, y0: float, x1: float, y1: float) -> list[tuple[float, float]]:
    return [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]


# Shape a is class a's in training. Each is a union of convex polygons, in units of the actor's radius.
SHAPES = {
    "square": [_box(-0.8, -0.8, 0.8, 0.8)],
    "triangle": [[(-1.14, -0.75), (1.14, -0.75), (0.0, 1.0)]],
    "cross": [_box(-1.0, -0.34, 1.0, 0.34), _box(-0.34, -1.0, 0.34, 1.0)],
    "ell": [_box(-0.9, -1.0, -0.1, 1.0), _box(-0.9, 0.2, 0.9, 1.0)],
    "arrow": [_box(-0.28, -1.0, 0.28, 0.1), [(-0.95, 0.0), (0.95, 0.0), (0.0, 0.95)]],
    "tee": [_box(-1.0, 0.22, 1.0, 0.98), _box(-0.36, -1.0, 0.36, 0.6)],
    "pentagon": [[(0.95 * np.cos(a), 0.95 * np.sin(a)) for a in 2 * np.pi / 5 * np.arange(5)]],
    "bar": [_box(-1.05, -0.42, 1.05, 0.42)],
}


def _edges(polygon: list[tuple[float, float]]) -> list[tuple[float, float, float]]:
    """Outward unit normal and offset (nx, ny, c) of each edge: inside is where nx*x + ny*y <= c on all of them."""
    points = np.array(polygon)
    edges = np.roll(points, -1, 0) - points
    normals = np.stack([edges[:, 1], -edges[:, 0]], 1) / np.linalg.norm(edges, axis=1, keepdims=True)
    return [(nx, ny, float(nx * x + ny * y)) for (nx, ny), (x, y) in zip(normals.tolist(), polygon, strict=True)]


_EDGES = [[_edges(polygon) for polygon in shape] for shape in SHAPES.values()]
HUE = (-0.025, 0.025)  # range of the actor's hue around its own, in turns of the colour circle


def _colour(hue: float, saturation: float, value: float) -> np.ndarray:
    """Grey levels of red, green and blue, float32 (3,), of a colour whose hue runs 0..1 around the circle."""
    return np.array(hsv_to_rgb(hue % 1, saturation, value), np.float32) * 255


def draw_actor(
    canvas: np.ndarray, actor: int, at: Pose, hue_jitter: float, textured_hue: float | None = None
) -> np.ndarray:
    """Paint actor ``actor`` into ``canvas`` (3,T,S,S) float32 in grey levels; returns its mask uint8 (T,S,S).

    With ``textured_hue`` it has this hue, and stripes of its own in place of two halves.

    The mask is the share of each pixel that the actor covers, in 255ths, and exactly the weight it was painted with.
    An edge's distance is a sum of a term in x and one in y, so the only whole-frame work is one subtraction and one
    minimum an edge; colour planes are separate, because numpy is ten times slower on a last axis of length 3.
    """
    size = canvas.shape[-1]
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) / size
    dx = (centres - at.x[:, None] + np.float32(0.5)) % 1 - np.float32(0.5)  # (T,S): shortest way around the torus
    dy = (centres - at.y[:, None] + np.float32(0.5)) % 1 - np.float32(0.5)
    cos, sin, radius = np.cos(at.angle), np.sin(at.angle), at.radius

    def inside_edge(nx: float, ny: float, offset: float) -> np.ndarray:
        """Distance in pixels to the inner side of an edge that turns with the actor, float32 (T,S,S)."""
        across = (nx * cos - ny * sin)[:, None] * dx * size
        down = (offset * radius)[:, None] * size - (nx * sin + ny * cos)[:, None] * dy * size
        return down[:, :, None] - across[:, None, :]

    def inside_all(edges: Sequence[tuple[float, float, float]]) -> np.ndarray:
        part = inside_edge(*edges[0])
        for edge in edges[1:]:
            np.minimum(part, inside_edge(*edge), out=part)
        return part

    first, *others = _EDGES[actor]
    inside = inside_all(first)
    for edges in others:
        np.maximum(inside, inside_all(edges), out=inside)
    inside += np.float32(0.5)
    mask = (np.clip(inside, 0, 1, out=inside) * np.float32(255) + np.float32(0.5)).astype(np.uint8)
    weight = mask * np.float32(1 / 255)
    # a light and a dark half, so that even the square can be seen to turn
    if textured_hue is None:
        light = np.clip(inside_edge(-1.0, 0.0, 0.0) + np.float32(0.5), 0, 1)
        hue = actor / 8 + 0.5 + hue_jitter
    else:
        across = inside_edge(-1.0, 0.0, 0.0) if actor < 4 else inside_edge(0.0, -1.0, 0.0)
        light = 0.5 + 0.5 * np.sin((actor % 4 + 1) * (np.pi / 2) * across / (radius[:, None, None] * size))
        light, hue = light.astype(np.float32), textured_hue
    bright, dark = _colour(hue, 0.9, 1.0), _colour(hue + 0.04, 0.9, 0.55)
    for plane, hi, lo in zip(canvas, bright, dark, strict=True):
        paint = light * (hi - lo)
        paint += lo
        paint = paint - plane  # one frame of paint serves all frames of a canvas when the actor stands still
        paint *= weight
        plane += paint
    return mask


# --------------------------------------------------------------------------------------------------- scenes
def scene_image(
    scene: int, size: int, saturation: float, rng: np.random.Generator, textured_hue: float | None = None
) -> np.ndarray:
    """One static background, float32 (3,S,S) in grey levels; scenes 8..15 look like no scene seen in training.

    With ``textured_hue`` it has this hue, and scenes differ by their texture alone.
    """
    jitter, light, dark = rng.uniform(-0.02, 0.02), *rng.uniform(-0.08, 0.08, 2)
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, 2).tolist()
    hue = scene % 8 / 8 + (1 / 16 if scene >= 8 else 0) + jitter
    kind, waves = (scene + (scene >= 8)) % 4, (3, 5)[scene // 4 % 2]
    if textured_hue is not None:
        hue, waves = textured_hue, waves + (scene >= 8)

    axis = ((np.arange(size) + 0.5) * (2 * np.pi / size)).astype(np.float32)
    x, y = axis[None, :], axis[:, None]
    match kind:
        case 0:
            texture = np.sin(waves * x + phase_x) + 0 * y
        case 1:
            texture = np.sin(waves * y + phase_x) + 0 * x
        case 2:
            texture = 1.4 * np.sin(waves * x + phase_x) * np.sin(waves * y + phase_y)
        case _:
            texture = np.sin(waves * (x + y) + phase_x)
    weight = 0.5 + 0.4 * texture
    for _ in range(3):  # slow clutter, different in every video
        kx, ky = rng.integers(-2, 3, 2).tolist()
        weight += 0.5 * rng.uniform(-0.35, 0.35) * np.cos(kx * x + ky * y + rng.uniform(0, 2 * np.pi))
    weight = np.clip(weight, 0, 1)
    first = _colour(hue, 0.45 * saturation, 0.75 + light)
    second = _colour(hue + 0.08, 0.55 * saturation, 0.40 + dark)
    return np.stack([b + weight * (a - b) for a, b in zip(first, second, strict=True)])


@cache
def _noise_table() -> np.ndarray:
    """2^20 standard normal numbers: every frame takes a run of them, 30 times cheaper than drawing its own."""
    return np.random.Generator(np.random.SFC64(0)).standard_normal(2**20, np.float32)


def video(config: MotionsConfig, split: str, index: int) -> tuple[np.ndarray, np.ndarray, Cast]:
    """Render one video.

    Returns:
        frames: uint8 (T, S, S, 3), RGB.
        mask: uint8 (T, S, S), the share of each pixel that the moving actor covers, in 255ths.
        cast: who plays.
    """
    who = cast(config, split, index)
    path = pose(config, split, index)
    world, stream = config.harder, lambda purpose: _stream(config, split, index, purpose)
    scene_hue, actor_hue = random_hue(stream) if world.looks == "texture" else (None, None)
    scene = scene_image(who.scene, config.size, config.scene_saturation, stream(_SCENE), scene_hue)
    canvas = np.repeat(scene[:, None], config.frames, 1)
    if who.static_actor is not None:
        # half a canvas from where the mover is in mid-clip, along x, y or both; beneath the mover
        rng = _stream(config, split, index, _STATIC)
        mid, (away_x, away_y) = config.frames // 2, ((0.5, 0.5), (0.5, 0.0), (0.0, 0.5))[int(rng.integers(3))]
        x, y = (path.x[mid] + away_x) % 1, (path.y[mid] + away_y) % 1
        angle, radius, hue_jitter = rng.uniform(0, 2 * np.pi), np.exp(rng.uniform(*np.log(RADIUS))), rng.uniform(*HUE)
        still = Pose(*(np.array([v], np.float32) for v in (x, y, angle, radius)))
        draw_actor(canvas, who.static_actor, still, hue_jitter, actor_hue)
    for actor, (x, y, angle, log_radius) in wandering(world, config.frames, stream):
        draw_actor(canvas, actor, Pose(x % 1, y % 1, angle, np.exp(log_radius)), 0.0, actor_hue)
    mask = draw_actor(canvas, who.actor, path, stream(_LOOK).uniform(*HUE), actor_hue)
    if world.cover:
        covered(canvas, mask, scene, world, stream)
    if world.light:
        lit(canvas, world, stream)
    if world.camera != "still":
        camera = camera_of(config, split, index)
        canvas, mask = filmed(canvas, camera), np.rint(filmed(mask, camera)).astype(np.uint8)
    return finished(canvas, config.noise, stream(_NOISE)), mask, who


def camera_of(config: MotionsConfig, split: str, index: int) -> np.ndarray:
    """float64 (T,4): where a video's camera is in each frame, see ``camera_path``."""
    return camera_path(config.harder, config.frames, lambda purpose: _stream(config, split, index, purpose))


def finished(canvas: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    """uint8 (T,S,S,3) of a canvas (3,T,S,S) float32 in grey levels, with Gaussian noise; the canvas is used up."""
    frames, size = canvas.shape[1], canvas.shape[2]
    if noise:
        table, run = _noise_table(), 3 * size**2
        starts = rng.integers(0, len(table) - run, frames)
        for t, start in enumerate(starts.tolist()):
            canvas[:, t] += table[start : start + run].reshape(3, size, size) * np.float32(noise)
    canvas += np.float32(0.5)
    planes = np.clip(canvas, 0, 255, out=canvas).astype(np.uint8)
    return np.ascontiguousarray(planes.transpose(1, 2, 3, 0))
