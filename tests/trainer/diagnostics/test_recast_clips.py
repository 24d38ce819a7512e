"""Recast's forms of given videos: each is what its name says, and the folder is complete."""

import json

import av
import numpy as np
import pytest
import torch
from PIL import Image

from unstill.pipeline.errors import InputError
from unstill.trainer.augmentations.colour_statistics import colour_covariance
from unstill.trainer.diagnostics.config import RecastClipsConfig
from unstill.trainer.diagnostics.recast_clips import FORMS, recast_forms, write_recast_clips

pytestmark = pytest.mark.usefixtures("one_thread")

T, S = 8, 32


def moving_disc(seed, direction):
    """uint8 (T,S,S,3): a coloured disc before a smooth background."""
    rng = np.random.default_rng(seed)
    background = rng.integers(60, 190, (4, 4, 3)).repeat(8, 0).repeat(8, 1)
    frames = np.repeat(background[None], T, 0)
    at, colour = np.arange(S), rng.integers(0, 255, 3)
    for t in range(T):
        disc = (at - 8 - direction * 2 * t) ** 2 + (at[:, None] - S / 2) ** 2 < 36
        frames[t, disc] = colour
    return frames.astype(np.uint8)


def test_each_form_is_what_its_name_says(tmp_path):
    frames = torch.from_numpy(np.stack([moving_disc(0, 1), moving_disc(5, 1)]))
    config = RecastClipsConfig(videos=(tmp_path / "a", tmp_path / "b"), out=tmp_path)
    forms, found = recast_forms(frames, config)
    assert tuple(forms) == FORMS and found.trusted.all() and not found.helps.any()
    assert torch.equal(forms["filmed"], frames) and torch.equal(forms["steady"], frames)
    assert torch.equal(forms["reversed"], frames.flip(1))
    mean = {form: clips.float().mean(1) for form, clips in forms.items()}
    assert (mean["moving"] - 127.5).abs().max() < 1
    inside = {f: (c.float() > 2) & (c.float() < 253) for f, c in forms.items()}  # not cut off at black or white
    kept = inside["recast"].all(1) & inside["swapped"].all(1)
    assert (mean["recast"] - mean["filmed"])[kept].abs().max() < 2
    assert (mean["swapped"] - mean["filmed"].flip(0))[kept].abs().max() < 2
    moving = (frames.float() - frames.float().mean(1, keepdim=True)).permute(0, 4, 1, 2, 3)
    assert not torch.allclose(colour_covariance(moving)[0], colour_covariance(moving)[1], rtol=0.3)


def test_the_folder_and_its_videos(tmp_path):
    for name, seed in (("a", 0), ("b", 5)):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = S, S, "yuvj420p"
            for frame in moving_disc(seed, 1):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
    videos = (tmp_path / "a.mp4", tmp_path / "b.mp4")
    options = {"frames": T, "stride": 1, "size": S}
    path = write_recast_clips(RecastClipsConfig(videos=videos, out=tmp_path / "out", **options))
    facts = json.loads(path.read_text())
    assert (
        list(facts) == ["a_mp4", "b_mp4"]
        and facts["a_mp4"]["recast"] == "moving part"
        and facts["a_mp4"]["still_as_filmed"] > 0.6
    )
    for form in FORMS:
        with av.open(str(tmp_path / "out" / "b_mp4" / f"{form}.mp4")) as container:
            assert sum(1 for _ in container.decode(video=0)) == T
    assert Image.open(tmp_path / "out" / "sheet.png").size == (len(FORMS) * 4 * S, 2 * S)
    with pytest.raises(InputError, match="two videos"):
        RecastClipsConfig(videos=videos[:1], out=tmp_path)
    with pytest.raises(InputError, match="two have one name"):
        write_recast_clips(RecastClipsConfig(videos=(videos[0],) * 2, out=tmp_path / "out", **options))
