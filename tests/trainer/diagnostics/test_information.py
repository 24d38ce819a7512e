"""The information bound on worlds whose mutual information is known in closed form."""

import numpy as np
import pytest

from unstill.trainer.diagnostics.information import information


def sampled(joint, n, seed=0):
    """n draws of (y, b, z) from p (Y,B,Z), and I(z; b | y), H(b | y) of p, in nats."""
    joint = joint / joint.sum()
    rng = np.random.default_rng(seed)
    y, b, z = np.unravel_index(rng.choice(joint.size, n, p=joint.ravel()), joint.shape)
    y_, yb, yz = joint.sum((1, 2), keepdims=True), joint.sum(2, keepdims=True), joint.sum(1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        mutual = np.nansum(joint * np.log(joint * y_ / (yb * yz)))
    entropy = -(yb * np.log(yb / y_)).sum()
    return y, b, z, mutual, entropy


@pytest.mark.parametrize("by_class", [False, True])
def test_a_small_discrete_world(by_class):
    """p(b | z, y) is log-linear here, so the bound is tight: near the truth, and not above it beyond its interval."""
    base = np.array([[0.6, 0.3, 0.1], [0.2, 0.3, 0.5]])  # p(b | y)
    channel = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]])  # p(z | b)
    y, b, z, mutual, entropy = sampled(base[:, :, None] * channel, 3000)
    found = information(np.eye(3)[z], b, y, by_class=by_class)
    assert found.low < mutual < found.high and abs(found.bound - mutual) < 0.04
    assert found.entropy == pytest.approx(entropy, abs=0.02)
    assert found.share == pytest.approx(mutual / entropy, abs=0.05)


def test_what_depends_on_the_class_needs_its_own_layer():
    """z is b in one class and its opposite in the other: without the class it says nothing."""
    joint = np.zeros((2, 2, 2))
    joint[0], joint[1] = np.eye(2) / 4, (1 - np.eye(2)) / 4
    y, b, z, mutual, entropy = sampled(joint, 1000)
    assert mutual == pytest.approx(np.log(2)) == entropy
    shared, own = (information(np.eye(2)[z], b, y, by_class=k) for k in (False, True))
    assert abs(shared.bound) < 0.02 and own.share > 0.97
    assert abs(information(np.eye(2)[z], b).bound) < 0.02  # and unconditionally there is nothing


def test_nothing_is_zero_and_everything_is_the_entropy():
    rng = np.random.default_rng(0)
    y, b = rng.integers(8, size=512), rng.integers(8, size=512)
    noise = information(rng.normal(size=(512, 32)), b, y)
    assert noise.low < 0 < noise.high + 0.01 and abs(noise.bound) < 0.03
    told = information(np.eye(8)[b], b, y)
    assert told.share == pytest.approx(1, abs=0.01) and told.accuracy == 1 and told.base < 0.4
    # what the class gives away is not counted: z = y, b is y for the most part
    b = np.where(rng.random(512) < 0.9, y, b)
    assert abs(information(np.eye(8)[y], b, y).bound) < 0.02
    assert information(np.eye(8)[y], b).bound > 1


def test_intervals_are_clustered():
    """Ten copies of each video are no more evidence than one."""
    rng = np.random.default_rng(0)
    b = rng.integers(2, size=60)
    x = b[:, None] + rng.normal(size=(60, 1))
    x, b, names = np.repeat(x, 10, 0), np.repeat(b, 10), np.repeat([f"v{n}" for n in range(60)], 10).tolist()
    together, apart = information(x, b, groups=names), information(x, b)
    assert together.high - together.low > 2.5 * (apart.high - apart.low)
