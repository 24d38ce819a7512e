"""What a still clip still says: the measures that SCUFO's accuracy cannot replace, on cases whose answer is known."""

import numpy as np
import pytest
import torch

from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.protocols import least_likely, linearly_readable
from unstill.trainer.evaluation.scorecard import scorecard

N, C = 400, 8
LABELS = np.arange(N) % C
KEYS = tuple(f"video{n}" for n in range(N))


def noise(seed=0, n=N, width=C):
    return np.random.default_rng(seed).standard_normal((n, width))


def card_of(logits, keys=KEYS, labels=LABELS):
    still = Predictions(keys, labels, logits)
    return scorecard({"scufo": still, "scuba": still}).shares


def test_a_label_turned_upside_down_is_read_although_accuracy_is_below_guessing():
    """Small, ordered margins: the distribution is all but even, SCUFO is 0, and the class is there in full."""
    logits = 1e-3 * noise() - 0.02 * np.eye(C)[LABELS]
    found = card_of(logits)
    assert found["scufo"].value == 0 and found["scufo_least"].value == 100 and found["scufo_probe"].value > 99
    assert found["static_entropy"].value > 99.9
    assert found["contrasted"].value == 0  # both sets are one here


def test_logits_that_say_nothing_are_at_guessing():
    found = card_of(noise())
    for name in ("scufo", "scufo_least", "scufo_probe"):
        assert found[name].low < 100 / C < found[name].high, name
    constant = card_of(np.ones((N, C)))
    assert constant["scufo_least"].value == pytest.approx(100 / C)


@pytest.mark.slow
def test_the_interval_holds_guessing_as_often_as_it_says():
    """95 % intervals of forty independent draws: at most 6 misses has a probability above 0.999."""
    inside = sum(found.low < 100 / C < found.high for found in (card_of(noise(s))["scufo_probe"] for s in range(40)))
    assert inside >= 34


def test_the_probe_cannot_learn_a_video_by_heart():
    """Five composites of one video are alike and their class is random: nothing can be known of another video's."""
    rng = np.random.default_rng(0)
    features, labels = np.repeat(rng.standard_normal((60, 40)), 5, 0), np.repeat(rng.integers(0, 4, 60), 5)
    logits = np.ones((300, 4))
    composites = Predictions(tuple(f"v{n // 5}__{n % 5}" for n in range(300)), labels, logits)
    alone = Predictions(tuple(f"v{n}" for n in range(300)), labels, logits)  # as if each were a source of its own
    assert linearly_readable(composites, features).mean() < 0.45
    assert linearly_readable(alone, features).mean() > 0.9


def test_logits_and_log_probabilities_give_the_same():
    logits = noise() + 0.5 * np.eye(C)[LABELS]
    p = Predictions(KEYS, LABELS, torch.from_numpy(logits).log_softmax(1).numpy())
    assert np.array_equal(linearly_readable(p), linearly_readable(Predictions(KEYS, LABELS, logits)))
    assert np.array_equal(least_likely(p), least_likely(Predictions(KEYS, LABELS, logits)))


def test_features_are_probed_where_they_are_known_and_small_sets_are_left_out():
    hidden = np.eye(C)[LABELS]
    still = Predictions(KEYS, LABELS, np.ones((N, C)) + 1e-9 * noise(), features=hidden + 0.1 * noise(1))
    found = scorecard({"scufo": still, "scuba": still}).shares
    assert found["scufo_feature_probe"].value > 99 and found["scufo_probe"].value < 25
    few = still.rows(np.arange(4))
    assert not {"scufo_probe", "scufo_feature_probe"} & set(scorecard({"scufo": few, "scuba": few}).shares)
