"""Camera motion that was put into clips is found, behind a mover, and taken out; where there is none, or it cannot be
found, clips stay as they are."""

import pytest
import torch
import torch.nn.functional as F
from synthetic_run import loader_of, make_dataset, run_config

from unstill.trainer.augmentations import Recast
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.models.camera_motion import estimate_camera, hold_still, places, steady_clips
from unstill.trainer.models.config import ClipViewConfig, ModelConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

T, S = 8, 48


def matrices(kind, clips=4, seed=0):
    """(B,T,3,3): a camera's path; each moves by up to about two pixels from frame to frame."""
    g = torch.Generator().manual_seed(seed)
    found = torch.eye(3).repeat(clips, T, 1, 1)
    pixel = 2 / S
    if kind == "shake":
        found[:, :, :2, 2] = 2 * pixel * (2 * torch.rand(clips, T, 2, generator=g) - 1)
    elif kind == "pan":
        found[:, :, :2, 2] = torch.arange(T)[:, None] * pixel * (2 * torch.rand(clips, 1, 2, generator=g) - 1)
    elif kind == "turn_and_zoom":
        turn, zoom = (torch.arange(T) * 0.02 * (2 * torch.rand(clips, 1, generator=g) - 1) for _ in range(2))
        found[:, :, 0, 0] = found[:, :, 1, 1] = torch.exp(zoom) * torch.cos(turn)
        found[:, :, 1, 0] = torch.exp(zoom) * torch.sin(turn)
        found[:, :, 0, 1] = -found[:, :, 1, 0]
    return found


def filmed(path, mover=True, seed=0):
    """Clips (B,3,T,S,S) of smooth random scenes seen along a path, with a bright disc that crosses them, and noise."""
    g = torch.Generator().manual_seed(seed)
    b = len(path)
    scene = F.interpolate(torch.randn(b, 3, 20, 20, generator=g), (2 * S, 2 * S), mode="bicubic")
    # the picture is the middle of the scene, so that the borders show what was not seen before
    grid = places(path.flatten(0, 1), S, S) / 2
    frames = F.grid_sample(scene.repeat_interleave(T, 0), grid, align_corners=False).view(b, T, 3, S, S)
    clips = frames.transpose(1, 2).contiguous()
    if mover:
        at = torch.arange(S).float()
        for t in range(T):
            disc = ((at - 10 - 4 * t) ** 2 + (at[:, None] - S / 2) ** 2) < 8**2
            clips[:, :, t, disc] = torch.tensor([3.0, -3.0, 2.0])[:, None]
    return clips + 0.05 * torch.randn(clips.shape, generator=g)


def error(found, truth):
    """(B,): mean distance in pixels of nine places."""
    at = torch.tensor([[x, y, 1.0] for x in (-0.8, 0, 0.8) for y in (-0.8, 0, 0.8)])
    here = [m @ at.T for m in (found, truth)]
    here = [m[..., :2, :] / m[..., 2:, :] for m in here]
    return (here[0] - here[1]).norm(dim=2).mean((1, 2)) * S / 2


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("shake", "translation"),
        ("pan", "translation"),
        ("shake", "similarity"),
        ("turn_and_zoom", "similarity"),
        ("turn_and_zoom", "homography"),
    ],
)
def test_a_camera_behind_a_mover_is_found_and_held_still(path, kind):
    camera = matrices(path)
    truth = torch.linalg.inv(camera) @ camera[:, T // 2, None]
    clips = filmed(camera)
    found = estimate_camera(clips, kind)
    before = error(torch.eye(3).expand_as(truth), truth)
    assert before.mean() > 0.5
    assert error(found.matrices, truth).max() < 0.15
    assert found.trusted.all() and found.helps[before > 1].all()
    without_mover = filmed(camera, mover=False)
    spread = [c.std(2).median() for c in (without_mover, hold_still(without_mover, found.matrices))]
    assert spread[1] < 0.35 * spread[0]


def test_clips_of_a_still_camera_stay_to_the_bit():
    clips = filmed(matrices("still"))
    steady, trusted = steady_clips(clips)
    assert trusted.all() and torch.equal(steady, clips)
    one = clips[:, :, :1].expand_as(clips)
    steady, trusted = steady_clips(one)
    assert trusted.all() and torch.equal(steady, one)
    flat = torch.zeros(2, 3, T, S, S)  # nothing to see: no number that is not finite
    assert torch.equal(steady_clips(flat, "homography")[0], flat)


def test_a_clip_whose_picture_changes_altogether_is_not_trusted_and_left_alone():
    clips = torch.cat([filmed(matrices("still"), seed=seed) for seed in range(2)])
    cuts = torch.cat([clips[:4, :, : T // 2], clips[4:, :, T // 2 :]], 2)
    steady, trusted = steady_clips(cuts)
    assert not trusted.any() and torch.equal(steady, cuts)


def test_bf16_clips_stay_bf16():
    steady, _ = steady_clips(filmed(matrices("shake")).bfloat16())
    assert steady.dtype == torch.bfloat16


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path / "data")
    return tmp_path


def test_training_and_evaluation_take_the_camera_out_alike(folder):
    view = ClipViewConfig(sees="moving_part", steady="translation")
    model = ModelConfig(name="motion_cnn", view=view)
    config = run_config(folder, model=model, augmentation=Recast())
    train(config, make_loader=loader_of())
    network, _, _ = load_model(config.out)
    still = load_model(config.out)[0]
    still.clip_view.camera = None
    clips = filmed(matrices("shake"))
    torch.testing.assert_close(network(clips), still(steady_clips(clips, "translation")[0]))
    assert not torch.allclose(network(clips), still(clips))
    seen = []
    network.train().clip_view.register_forward_hook(lambda _, inputs, output: seen.append((inputs[0], output)))
    network(clips)
    assert torch.equal(seen[0][1], clips - clips.mean(2, keepdim=True))  # the step has held it still before
