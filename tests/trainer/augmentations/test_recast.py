"""Recast against its definition in float64; what must not change to the bit; two views as the weighted sum of both."""

import copy

import numpy as np
import pytest
import synthetic_run
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.augmentations import Recast
from unstill.trainer.augmentations.base import Context
from unstill.trainer.augmentations.colour_statistics import colour_covariance, square_roots
from unstill.trainer.augmentations.recast import other_rows, random_rotations, recast
from unstill.trainer.batch import Batch, one_frame
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline
from unstill.trainer.passes import backward_in_passes, step_passes
from unstill.trainer.step_config import StepConfig

pytestmark = pytest.mark.usefixtures("one_thread")

B, T, S = 6, 4, 8
IDENTITY = torch.eye(3, dtype=torch.float64).expand(B, 3, 3)


def coloured_clips(seed=0, dtype=torch.float64):
    """Clips with a colour covariance of their own each, over a still background; the upper half does not move."""
    g = torch.Generator().manual_seed(seed)
    moving = torch.randn(B, 3, T, S, S, generator=g, dtype=torch.float64)
    moving = torch.einsum("bij,bjthw->bithw", torch.randn(B, 3, 3, generator=g, dtype=torch.float64), moving)
    moving[..., : S // 2, :] = 0
    return (moving + torch.randn(B, 3, 1, S, S, generator=g, dtype=torch.float64)).to(dtype)


def moving_part(clips):
    return clips - clips.mean(2, keepdim=True)


@pytest.mark.parametrize("whole", [False, True])
def test_the_covariance_becomes_the_partners_before_the_other_background(whole):
    clips, rng = coloured_clips(), np.random.default_rng(1)
    partner, behind = torch.tensor([3, 0, 5, 1, 2, 4]), torch.tensor([1, 2, 3, 4, 5, 0])
    rotation = torch.from_numpy(random_rotations(B, rng))
    axes = (2, 3, 4) if whole else 2
    still = clips.mean(axes, keepdim=True)
    out = recast(clips, partner, behind, rotation, floor=0.0, whole=whole)
    torch.testing.assert_close(out.mean(axes, keepdim=True), still[behind], rtol=0, atol=1e-12)
    expected = colour_covariance(clips - still)[partner]
    found = colour_covariance(out - still[behind])
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()
    # the matrix is C_k^1/2 Q C_i^-1/2, and not another one with that effect; the roots by an eigen-decomposition
    values, vectors = torch.linalg.eigh(colour_covariance(clips - still))
    root = vectors @ torch.diag_embed(values.sqrt()) @ vectors.mT
    matrix = root[partner] @ rotation @ torch.linalg.inv(root)
    expected = still[behind] + torch.einsum("bij,bjthw->bithw", matrix, clips - still)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-10)


def test_clips_whose_camera_moves_are_recast_as_a_whole():
    clips, partner, rotation = coloured_clips(), torch.tensor([3, 0, 5, 1, 2, 4]), IDENTITY
    steady = torch.tensor([True, False] * 3)
    both = recast(clips, partner, partner, rotation, whole=~steady)
    # partners of either kind lend what they have themselves
    moving = torch.where(steady.view(-1, 1, 1, 1, 1), moving_part(clips), clips - clips.mean((2, 3, 4), keepdim=True))
    covariance = colour_covariance(moving, 1e-3)
    root, inverse_root = square_roots(covariance)
    still = torch.where(
        steady.view(-1, 1, 1, 1, 1), clips.mean(2, keepdim=True)[partner], clips.mean((2, 3, 4), keepdim=True)[partner]
    )
    expected = still + torch.einsum("bij,bjthw->bithw", root[partner] @ inverse_root, moving)
    torch.testing.assert_close(both, expected, rtol=0, atol=1e-12)
    batch = batch_of(clips)
    batch.per_sample["steady"] = torch.ones(B, dtype=torch.bool)
    assert torch.equal(applied(Recast(), batch).motion, applied(Recast(), batch_of(clips)).motion)
    batch.per_sample["steady"] = torch.zeros(B, dtype=torch.bool)
    assert torch.equal(applied(Recast(), batch).motion, applied(Recast(what="clip"), batch_of(clips)).motion)


def test_its_own_colours_without_a_rotation_are_the_clip():
    clips, own = coloured_clips(), torch.arange(B)
    torch.testing.assert_close(recast(clips, own, own, IDENTITY), clips, rtol=0, atol=1e-12)


def test_what_does_not_move_is_the_background_to_the_bit():
    clips = torch.round(256 * coloured_clips(dtype=torch.float32)) / 256  # means over 4 frames are then exact
    behind = torch.tensor([1, 2, 3, 4, 5, 0])
    rotation = torch.from_numpy(random_rotations(B, np.random.default_rng(0)))
    out = recast(clips, behind, behind, rotation)
    upper = clips[behind][..., : S // 2, :].mean(2, keepdim=True)
    assert torch.equal(out[..., : S // 2, :].mean(2, keepdim=True).expand_as(upper), upper)
    still = clips.clone()
    still[:] = still[:, :, :1]  # nothing moves in any clip: there is nothing to recast, and nothing that is not finite
    assert torch.equal(recast(still, behind, behind, rotation), still[behind])


@pytest.mark.parametrize(
    "spectrum", [(1, 1, 1), (1, 1, 1e-3), (1, 1e-3, 1e-3), (1, 1e-3, 1.000001e-3), (4, 0.5, 1e-3), (1e-3,) * 3]
)
def test_square_roots_hold_where_eigenvalues_meet(spectrum):
    g = torch.Generator().manual_seed(0)
    turned = torch.linalg.qr(torch.randn(50, 3, 3, generator=g, dtype=torch.float64))[0]
    matrices = turned @ torch.diag(torch.tensor(spectrum, dtype=torch.float64)) @ turned.mT
    matrices = (matrices + matrices.mT) / 2
    root, inverse_root = square_roots(matrices)
    torch.testing.assert_close(root @ root, matrices, rtol=0, atol=1e-13)
    torch.testing.assert_close(
        inverse_root @ matrices @ inverse_root, torch.eye(3).double().expand(50, 3, 3), rtol=0, atol=1e-10
    )


def test_rotations_are_rotations_and_point_everywhere():
    turns = random_rotations(4000, np.random.default_rng(0))
    np.testing.assert_allclose(turns @ turns.transpose(0, 2, 1), np.tile(np.eye(3), (4000, 1, 1)), atol=1e-12)
    np.testing.assert_allclose(np.linalg.det(turns), 1, atol=1e-12)
    assert np.abs(turns.mean(0)).max() < 0.04  # 4 standard deviations
    others = np.stack([other_rows(5, np.random.default_rng(seed)) for seed in range(50)])
    assert (others != np.arange(5)).all() and len(np.unique(others[:, 0])) == 4
    assert other_rows(1, np.random.default_rng(0)).tolist() == [0]


def batch_of(clips):
    index = torch.arange(B) % T
    scene = torch.eye(B, dtype=clips.dtype)
    return Batch(clips, one_frame(clips, index), torch.arange(B) % 4, index, {"scene": scene})


def applied(augmentation, batch, seed=0):
    return augmentation(batch, np.random.default_rng(seed), Context(4))


def test_labels_static_clips_and_the_second_view_stay_as_filmed():
    batch = batch_of(coloured_clips())
    out, again = (applied(Recast(background="other"), batch) for _ in range(2))
    assert torch.equal(out.motion, again.motion) and not torch.equal(out.motion, applied(Recast(), batch, 1).motion)
    assert torch.equal(out.target, batch.target) and torch.equal(out.static, batch.static)
    assert torch.equal(out.second_view, batch.motion) and out.second_share == 0.3
    behind = [
        next(k for k in range(B) if torch.allclose(batch.motion[k].mean(1), out.motion[b].mean(1))) for b in range(B)
    ]
    assert out.per_sample["scene"].argmax(1).tolist() == behind and all(k != b for b, k in enumerate(behind))
    half = out.select(slice(2, 4))
    assert torch.equal(half.second_view, batch.motion[2:4]) and half.second_share == 0.3


def test_only_chosen_clips_are_recast():
    batch = batch_of(coloured_clips())
    untouched = applied(Recast(prob=0.0, background="other"), batch)
    assert torch.equal(untouched.motion, batch.motion)
    assert torch.equal(untouched.per_sample["scene"], batch.per_sample["scene"])
    some = applied(Recast(prob=0.5, as_filmed=0.0), batch, seed=3)
    same = [torch.equal(some.motion[b], batch.motion[b]) for b in range(B)]
    assert 0 < sum(same) < B and some.second_view is None


def gradients(net, method, run):
    module = LossModule(copy.deepcopy(net), method)
    loss, terms = run(module)
    return loss, terms, [p.grad for p in module.parameters()]


@pytest.mark.parametrize("method", [Baseline(), Albar(w_adv=0.5, w_gp=2.0), Albar(w_gp=2.0, forward="joint")])
def test_two_views_are_the_weighted_sum_of_their_losses(method):
    torch.manual_seed(0)
    net = synthetic_run.layer_norm_net(4).double()
    batch = applied(Recast(), batch_of(coloured_clips()))
    parts = [batch, Batch(batch.second_view, batch.static, batch.target)]

    def by_hand(module):
        found = [
            backward_in_passes(module, part, step_passes(method, B, True), scale=s)
            for part, s in zip(parts, (0.7, 0.3), strict=True)
        ]
        return 0.7 * found[0][0] + 0.3 * found[1][0], {}

    def in_passes(module):
        return backward_in_passes(module, batch, step_passes(method, B, True, static_parts=2, second_share=0.3))

    expected, found = gradients(net, method, by_hand), gradients(net, method, in_passes)
    torch.testing.assert_close((found[0], found[2]), (expected[0], expected[2]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", [Baseline(), Albar(), Albar(forward="joint")])
def test_the_order_of_passes_ends_with_the_only_last_one(method):
    passes = step_passes(method, 4, True, static_parts=2, second_share=0.3)
    assert [p.last for p in passes] == [False] * (len(passes) - 1) + [True]
    assert [p.second_view for p in passes if p.kind != "static"] == [False, True]
    assert sum(p.share for p in passes if p.kind == "static") in (0, 1)
    assert not any(p.last for p in step_passes(method, 4, True, second_share=0.3, last=False))


def test_wrong_options_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"augmentation\.as_filmed"):
        Recast(as_filmed=1.0)
    with pytest.raises(InputError, match=r"CUDA graphs.*as-filmed"):
        synthetic_run.run_config(tmp_path, augmentation=Recast(), step=StepConfig(compile="reduce-overhead"))
