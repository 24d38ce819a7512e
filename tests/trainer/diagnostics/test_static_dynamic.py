"""Static and dynamic scores: the published arithmetic, and networks whose answer is known on rendered videos."""

import numpy as np
import pytest
import torch
from known_networks import Flow
from torch import nn

from unstill.trainer.demo.motions.world import MotionsConfig, video
from unstill.trainer.diagnostics.feature_maps import pooled
from unstill.trainer.diagnostics.restyle import restyled
from unstill.trainer.diagnostics.static_dynamic import dimensions, static_dynamic
from unstill.trainer.evaluation.derived_clips import shuffled


def published(za, zb, factors):
    """``dim_est`` of YorkUCVIL/Static-Dynamic-Interpretability (f552b31): two factors, then a residual."""
    both = np.concatenate([za, zb])
    var = ((both - both.mean(0)) ** 2).mean(0).sum()
    scores, unit = [], []
    for f in (0, 1):
        a, b = za[factors == f], zb[factors == f]
        mean = 0.5 * (a.mean(0) + b.mean(0))
        covariance = ((a - mean) * (b - mean)).mean(0)
        scores.append(covariance.sum() / var)
        unit.append(covariance / np.concatenate([a, b]).var(0))
    weights = np.exp(np.array([*scores, 1.0]) - 1)
    dims = [int(s * za.shape[1]) for s in weights / weights.sum()]
    dims[-1] = za.shape[1] - sum(dims[:-1])
    return scores, dims, np.array(unit)


def test_the_published_arithmetic():
    rng = np.random.default_rng(0)
    motion, scene = rng.normal(size=(2, 300, 12))
    strength = np.linspace(0, 1, 12)
    noise = lambda: 0.3 * rng.normal(size=(300, 12))  # noqa: E731
    dynamic = tuple(strength * motion + (1 - strength) * rng.normal(size=(300, 12)) + noise() for _ in "ab")
    static = tuple((1 - strength) * scene + strength * rng.normal(size=(300, 12)) + noise() for _ in "ab")
    found = static_dynamic(dynamic, static)
    factors = np.repeat([0, 1], 300)
    za, zb = (np.concatenate([dynamic[n], static[n]]) for n in (0, 1))
    scores, dims, unit = published(za, zb, factors)
    assert (found.dynamic, found.static) == pytest.approx(scores)
    assert list(found.dimensions.values()) == dims
    over = unit > 0.5
    assert found.units == {
        "dynamic": (over[0] & ~over[1]).sum(),
        "static": (over[1] & ~over[0]).sum(),
        "joint": over.all(0).sum(),
        "neither": (~over.any(0)).sum(),
    }
    assert found.dynamic_interval[0] < found.dynamic < found.dynamic_interval[1]
    assert found.units["dynamic"] and found.units["static"]


def test_the_softmax_confines_the_shares():
    shares = [
        dimensions(*scores, 10_000)[name] / 10_000 for scores in ((0, 1), (1, 0)) for name in ("dynamic", "static")
    ]
    assert min(shares) == pytest.approx(0.155, abs=1e-3) and max(shares) == pytest.approx(0.422, abs=1e-3)


class MeanColour(nn.Module):
    """The head sees the mean colour of all frames: no order of frames changes it."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 8)

    def forward(self, x):
        return self.head(x.mean((2, 3, 4)))


@pytest.fixture(scope="module")
def clips():
    """Clean videos in pairs: equal motion, other scene and actor."""
    config = MotionsConfig(size=32, noise=0)
    sets = {split: np.stack([video(config, split, n)[0] for n in range(96)]) for split in ("iid", "anti")}
    return {name: torch.from_numpy(frames) for name, frames in sets.items()}


def scores(model, clips, partner):
    keys = [f"v{n}" for n in range(len(clips["iid"]))]

    def z(frames):
        pixels = frames.permute(0, 4, 1, 2, 3).float() / 255
        return pooled(model.eval(), pixels, ["penultimate"])["penultimate"].numpy()

    one, other = z(clips["iid"]), z(partner)
    mixed = [z(shuffled(frames, keys)) for frames in (clips["iid"], partner)]
    return static_dynamic((one, other), (np.concatenate([one, other]), np.concatenate(mixed)))


def test_networks_whose_answer_is_known(clips):
    colour = scores(MeanColour(), clips, clips["anti"])
    assert colour.static == pytest.approx(1, abs=1e-3) and colour.units["static"] == 3
    # as docs/diagnose.md says; not 0: equal numbers share pose, size and the brightness of the scene, too
    assert colour.dynamic == pytest.approx(0.4, abs=0.05)
    moves = scores(Flow(), clips, clips["anti"])
    assert moves.units["dynamic"] == 2 and abs(moves.static) < 0.15
    # above 1: clips in another order vary less, and the variance is over all of them
    assert moves.dynamic == pytest.approx(1.4, abs=0.05)


def test_noise_follows_nothing():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 400, 20))
    found = static_dynamic((z[0], z[1]), (z[2], z[3]))
    assert abs(found.dynamic) < 0.05 and abs(found.static) < 0.05 and found.units["neither"] == 20
    with pytest.raises(ValueError, match="constant"):
        static_dynamic((np.ones((9, 2)),) * 2, (np.ones((9, 2)),) * 2)


def test_restyling_keeps_the_motion(clips):
    frames = clips["iid"][:16]
    keys = [f"v{n}" for n in range(16)]
    other = restyled(frames, keys)
    assert other.dtype == torch.uint8 and torch.equal(other, restyled(frames, keys))
    assert (other != restyled(frames, keys, seed=1)).any()
    assert ((other.float() - frames.float()).abs().mean((1, 2, 3, 4)) > 5).all()
    # what does not change from frame to frame does not change after it, either
    still = frames[:, :1].expand_as(frames)
    assert (restyled(still, keys).float().std(1) == 0).all()
    alone = restyled(frames[3:4], keys[3:4])
    assert torch.equal(alone[0], other[3])
