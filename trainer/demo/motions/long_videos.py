"""Long videos in the world of "motions": one motion after another, with known borders, for what features are good for.

    localisation   actions of six classes between rests in which the actor stands still. A video has a main class, that
                   three of four of its actions are of.
    detection      the same with other videos; boxes around the actor say where an action is.
    anomaly        the four translations one after another; in an abnormal video one turn, or two, in between.

A video has one scene and one actor. In training they follow its label (the main class, or whether it is abnormal) with
a known rate. In the split ``free`` they are independent of it, in ``alike`` they follow it as in training; both have
the same motions at equal index, and differ in nothing but scene and actor. Zooms are left out: they cannot go on for
long.

Everything is a pure function of (task, seed, split, index). The mask of the moving actor is exact, as in ``world``.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from .world import CLASSES, HUE, RADIUS, STEP, TURN, Pose, draw_actor, finished, scene_image

Task = Literal["localisation", "anomaly", "detection"]
Split = Literal["train", "free", "alike"]
MOTIONS = CLASSES[:6]
TRANSLATIONS, TURNS = range(4), range(4, 6)
ACTION, REST = (12, 28), (8, 16)  # frames of an action and of a rest, ends included
USUAL, BURST = (12, 24), (24, 40)  # frames of a usual motion and of an abnormal one
MAIN_RATE = 0.75  # how often an action is of the video's main class

_PLAN, _LOOKS, _MOTION, _LOOK, _SCENE, _NOISE = range(6)


@dataclass(frozen=True, kw_only=True)
class LongMotionsConfig:
    """What to render."""

    task: Task
    """localisation, detection: actions and rests. anomaly: usual motions, and bursts of abnormal ones in every second
    video."""
    seed: int = 0
    """Seed of every random choice."""
    frames: int = 160
    """Frames in each video."""
    size: int = 64
    """Side of the square frames in pixels."""
    fps: int = 8
    """Frames a second."""
    look_rate: float = 0.95
    """How often scene and actor follow the label in the splits train and alike."""
    scene_saturation: float = 0.2
    """How colourful scenes are, as in the short videos."""
    noise: float = 6.0
    """Standard deviation of the noise on every pixel, in grey levels."""


class Part(NamedTuple):
    """A stretch of a video: what the actor does from frame ``first`` to before frame ``end``.

    ``motion`` is a position in ``MOTIONS``, None for a rest.
    """

    motion: int | None
    first: int
    end: int


class Plan(NamedTuple):
    """What happens in a video.

    ``label`` is its main class, or 1 for an abnormal video and 0 for a normal one; ``parts`` cover all frames;
    ``scene`` and ``actor`` are positions in ``MOTIONS``.
    """

    label: int
    parts: tuple[Part, ...]
    scene: int
    actor: int

    def abnormal(self) -> tuple[Part, ...]:
        """The turns."""
        return tuple(part for part in self.parts if part.motion in TURNS)


def plan(config: LongMotionsConfig, split: Split, index: int) -> Plan:
    """What happens in one video; the label is ``index mod 6`` or ``index mod 2``."""
    rng = _stream(config, split, index, _PLAN)
    label = index % (2 if config.task == "anomaly" else len(MOTIONS))
    parts = _anomaly_parts if config.task == "anomaly" else _action_parts
    found = parts(config.frames, label, rng)
    looks = _stream(config, split, index, _LOOKS)
    scene, actor = (_look(config, split, label, looks) for _ in range(2))
    return Plan(label, tuple(found), scene, actor)


def long_pose(config: LongMotionsConfig, split: Split, index: int, parts: tuple[Part, ...]) -> Pose:
    """The actor's path in one video, without jumps; its size does not change."""
    rng = _stream(config, split, index, _MOTION)
    steps = np.zeros((3, config.frames))  # from the frame before: across, down, turn
    ways = {"left": (0, -STEP), "right": (0, STEP), "up": (1, -STEP), "down": (1, STEP)}
    ways |= {"rot_cw": (2, TURN), "rot_ccw": (2, -TURN)}
    for part in parts:
        speed = rng.uniform(0.8, 1.2)
        if part.motion is not None:
            row, step = ways[MOTIONS[part.motion]]
            steps[row, part.first : part.end] = speed * step
    start = np.array([*rng.random(2), rng.uniform(0, 2 * np.pi)])
    x, y, angle = start[:, None] + np.cumsum(steps, 1)
    radius = np.full(config.frames, np.exp(rng.uniform(*np.log(RADIUS))))
    return Pose(*(np.asarray(value, np.float32) for value in (x % 1, y % 1, angle, radius)))


def long_video(config: LongMotionsConfig, split: Split, index: int) -> tuple[np.ndarray, np.ndarray, Plan]:
    """Render one video.

    Returns:
        frames: uint8 (T,S,S,3), RGB.
        mask: uint8 (T,S,S), the share of each pixel that the actor covers, in 255ths.
        plan: what happens.
    """
    happens = plan(config, split, index)
    stream = lambda purpose: _stream(config, split, index, purpose)  # noqa: E731
    scene = scene_image(happens.scene, config.size, config.scene_saturation, stream(_SCENE))
    canvas = np.repeat(scene[:, None], config.frames, 1)
    path = long_pose(config, split, index, happens.parts)
    mask = draw_actor(canvas, happens.actor, path, stream(_LOOK).uniform(*HUE))
    return finished(canvas, config.noise, stream(_NOISE)), mask, happens


def _action_parts(frames: int, main: int, rng: np.random.Generator) -> list[Part]:
    """Rests and actions in turn; the last rest takes what is left."""
    parts, at = [], 0
    while True:
        rest, action = (int(rng.integers(low, high + 1)) for low, high in (REST, ACTION))
        is_main, other = rng.random() < MAIN_RATE, int(rng.integers(1, len(MOTIONS)))
        if at + rest + action + REST[0] > frames:
            return [*parts, Part(None, at, frames)]
        motion = main if is_main else (main + other) % len(MOTIONS)
        parts += [Part(None, at, at + rest), Part(motion, at + rest, at + rest + action)]
        at += rest + action


def _anomaly_parts(frames: int, abnormal: int, rng: np.random.Generator) -> list[Part]:
    """Usual motions until the end; in an abnormal video bursts begin at one or two of their borders."""
    lengths = []
    while sum(lengths) < frames:
        lengths.append(int(rng.integers(USUAL[0], USUAL[1] + 1)))
    motions: list[int] = []
    for _ in lengths:
        motions.append(int(rng.choice([k for k in TRANSLATIONS if k != (motions or [None])[-1]])))
    bursts = 1 + int(rng.integers(2)) if abnormal else 0
    places = np.sort(rng.choice(np.arange(1, len(lengths) // 2), bursts, replace=False))[::-1]
    for place in places.tolist():
        lengths.insert(place, int(rng.integers(BURST[0], BURST[1] + 1)))
        motions.insert(place, int(rng.choice(list(TURNS))))
    ends = np.minimum(np.cumsum(lengths), frames).tolist()
    firsts = [0, *ends[:-1]]
    return [Part(m, a, b) for m, a, b in zip(motions, firsts, ends, strict=True) if a < b]


def _look(config: LongMotionsConfig, split: Split, label: int, rng: np.random.Generator) -> int:
    """A scene or an actor. Those of an abnormal video are a turn's, as the short videos have them, of a normal one a
    translation's; the same numbers are drawn in every split."""
    follows, any_look = rng.random() < config.look_rate, int(rng.integers(len(MOTIONS)))
    own = [list(TRANSLATIONS), list(TURNS)] if config.task == "anomaly" else [[k] for k in range(len(MOTIONS))]
    mine = int(rng.choice(own[label]))
    others = int(rng.choice([k for k in range(len(MOTIONS)) if k not in own[label]]))
    if split == "free":
        return any_look
    return mine if follows else others


def _stream(config: LongMotionsConfig, split: Split, index: int, purpose: int) -> np.random.Generator:
    task = ("localisation", "anomaly", "detection").index(config.task)
    return np.random.Generator(np.random.SFC64([config.seed, 2, task, split != "train", index, purpose]))
