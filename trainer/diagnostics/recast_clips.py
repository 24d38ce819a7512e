"""``unstill recast-clips``: what Recast makes of given videos, as videos to look at and to test a network with.

    OUT/<video>/filmed.mp4      the clip, cut and resized as a network gets it
    OUT/<video>/steady.mp4      the camera's motion taken out
    OUT/<video>/moving.mp4      its moving part, on grey
    OUT/<video>/reversed.mp4    played backwards: a network that reads motion answers otherwise, where direction matters
    OUT/<video>/recast.mp4      its mover in the colours of the next video's: the answer should stay
    OUT/<video>/swapped.mp4     the same before the next video's background: the answer should stay
    OUT/sheet.png               four frames of each
    OUT/clips.json              for each video, how much of the picture stands still, before and after

``unstill predict OUT/*/*.mp4`` then says what a network makes of them.
"""

import json
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...pipeline.atomic_files import atomic_path, make_folder, write_atomic
from ...pipeline.errors import InputError
from ...pipeline.loading.sampler import ClipConfig
from ..augmentations.recast import random_rotations, recast
from ..inference.predict import read_clips
from ..models.camera_motion import CameraMotion, estimate_camera, hold_still
from .config import RecastClipsConfig

FORMS = ("filmed", "steady", "moving", "reversed", "recast", "swapped")
SHOWN = 4  # frames of each in the sheet


def write_recast_clips(config: RecastClipsConfig) -> Path:
    """Write the folder; returns the path of clips.json.

    Raises:
        InputError: a video cannot be decoded, two have one name, or the folder cannot be written.
    """
    names = [video.name.replace(".", "_") for video in config.videos]  # a.mp4 and a.avi are two
    if len(set(names)) < len(names):
        raise InputError(f"videos {', '.join(names)}: two have one name; rename one")
    clip = ClipConfig(frames=config.frames, stride=config.stride, size=config.size, short_video="halve_stride")
    frames = torch.cat([read_clips(video, clip, views=1) for video in config.videos])
    forms, found = recast_forms(frames, config)
    facts = {}
    for n, name in enumerate(names):
        try:
            make_folder(config.out / name)
            for form, clips in forms.items():
                _write_video(config.out / name / f"{form}.mp4", clips[n].numpy())
        except OSError as error:
            raise InputError(f"{config.out}: cannot be written ({error.strerror}); choose another --out") from None
        facts[name] = {
            "still_as_filmed": round(float(found.still_before[n]), 3),
            "still_after": round(float(found.still[n]), 3),
            "trusted": bool(found.trusted[n]),
            "recast": "moving part" if bool(found.trusted[n]) else "whole clip",
        }
    Image.fromarray(sheet(forms)).save(config.out / "sheet.png")
    path = config.out / "clips.json"
    write_atomic(path, (json.dumps(facts, indent=1) + "\n").encode())
    return path


def recast_forms(frames: Tensor, config: RecastClipsConfig) -> tuple[dict[str, Tensor], CameraMotion]:
    """Each form of the clips, uint8 (B,T,h,w,3), and the cameras' motion that was found.

    Args:
        frames: uint8 (B,T,h,w,3).
        config: which camera motion is taken out, and the seed of the colours' rotation.
    """
    clips = frames.permute(0, 4, 1, 2, 3).float() / 255
    found = estimate_camera(clips, config.steady)
    steady = torch.where(found.helps.view(-1, 1, 1, 1, 1), hold_still(clips, found.matrices), clips)
    following = torch.arange(len(clips)).roll(-1)
    rotation = torch.from_numpy(random_rotations(len(clips), np.random.default_rng(config.seed)))
    own = torch.arange(len(clips))
    changed = [
        recast(steady, following, behind, rotation, floor=1e-4, whole=~found.trusted) for behind in (own, following)
    ]
    moving = steady - steady.mean(2, keepdim=True)
    made = dict(zip(FORMS, (clips, steady, 0.5 + moving, clips.flip(2), *changed), strict=True))
    made = {form: (255 * value.clamp(0, 1)).round().byte().permute(0, 2, 3, 4, 1) for form, value in made.items()}
    return made, found


def sheet(forms: dict[str, Tensor]) -> np.ndarray:
    """uint8 (H,W,3): a row for each video, its forms from left to right, frames of each."""
    frames = next(iter(forms.values())).shape[1]
    shown = np.linspace(0, frames - 1, SHOWN).round().astype(int)
    rows = [
        np.concatenate([np.concatenate(list(clips[n, shown].numpy()), 1) for clips in forms.values()], 1)
        for n in range(len(next(iter(forms.values()))))
    ]
    return np.concatenate(rows, 0)


def _write_video(path: Path, frames: np.ndarray) -> None:
    """uint8 (T,h,w,3) as VP9."""
    with atomic_path(path, durable=False) as partial, av.open(str(partial), "w", format="mp4") as container:
        stream = container.add_stream("libvpx-vp9", rate=15, options={"crf": "15", "b:v": "0", "cpu-used": "8"})
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
