"""Differences between two models: against formulas and repeated draws, not against our own intervals."""

import numpy as np
import pytest

from unstill.trainer.evaluation.differences import differences
from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.scorecard import scorecard

CLASSES = ("left", "right")


def card_of(right, labels, keys, name="iid"):
    """A scorecard of a model that is right where ``right`` says so."""
    predicted = np.where(right, labels, 1 - labels)
    return scorecard({name: Predictions(keys, labels, np.eye(2)[predicted], CLASSES, name)})


def test_values_and_the_interval_of_independent_clips():
    """The deviation of a mean of n differences is sd / sqrt(n); the bootstrap's interval is 1.96 of it to each side."""
    rng, n = np.random.default_rng(0), 900
    labels, keys = np.arange(n) % 2, tuple(f"v{i}" for i in range(n))
    one, two = rng.random(n) < 0.6, rng.random(n) < 0.7
    found = differences(card_of(one, labels, keys), card_of(two, labels, keys))["iid"]
    change = two.astype(float) - one
    assert found.value == pytest.approx(100 * change.mean()) and found.certain
    deviation = 100 * change.std(ddof=1) / n**0.5
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * deviation, rel=0.1)
    for label, name in enumerate(CLASSES):
        assert found.per_class[name].value == pytest.approx(100 * change[labels == label].mean())
        assert found.per_class[name].samples == n // 2


def test_pairs_make_it_narrow_and_common_sources_make_it_wide():
    rng, n = np.random.default_rng(1), 600
    labels, base = np.arange(n) % 2, rng.random(n) < 0.5
    keys = tuple(f"v{i}" for i in range(n))
    better = base | (rng.random(n) < 0.05)  # the same clips, and a few more
    paired = differences(card_of(base, labels, keys), card_of(better, labels, keys))["iid"]
    apart = differences(card_of(base, labels, keys), card_of(rng.permutation(better), labels, keys))["iid"]
    assert paired.high - paired.low < 0.5 * (apart.high - apart.low) and paired.low > 0
    # ten composites of each of 60 videos that agree: as wide as 60 videos are
    few = rng.random(60) < 0.3
    many_keys = tuple(f"v{i // 10}__{i % 10}" for i in range(n))
    same, change = np.zeros(n, bool), np.repeat(few, 10)
    clustered = differences(card_of(same, labels, many_keys), card_of(change, labels, many_keys))["iid"]
    deviation = 100 * few.std(ddof=1) / 60**0.5
    assert (clustered.high - clustered.low) / 2 == pytest.approx(1.96 * deviation, rel=0.15)
    assert (clustered.samples, clustered.clusters) == (600, 60)


def test_a_model_and_itself_differ_by_nothing_and_other_clips_are_not_compared():
    labels, keys = np.arange(8) % 2, tuple("abcdefgh")
    card = card_of(np.arange(8) < 5, labels, keys)
    found = differences(card, card)["iid"]
    assert (found.value, found.low, found.high, found.certain) == (0, 0, 0, False)
    assert differences(card, card_of(np.arange(8) < 5, labels, tuple("bcdefghi"))) == {}
    assert card.class_shares("iid")["left"].value == card.per_class["iid"]["left"]


def test_backgrounds_count_alike_as_in_the_percentages():
    labels, keys = np.zeros(4, int), tuple("abcd")

    def card(places, stripe):
        sets = {}
        for name, right, n in (("places", places, 4), ("stripe", stripe, 2)):
            p = Predictions(keys[:n], labels[:n], np.eye(2)[np.where(right, 0, 1)], CLASSES, name)
            sets[f"scuba.{name}"] = p
        return scorecard(sets)

    one, two = card([1, 0, 0, 0], [1, 1]), card([1, 1, 0, 0], [0, 0])
    found = differences(one, two)["scuba"]
    expected = two.values()["scuba"] - one.values()["scuba"]
    assert found.value == pytest.approx(expected) == pytest.approx((25 - 100) / 2)
    assert found.per_class["left"].value == pytest.approx(expected)
