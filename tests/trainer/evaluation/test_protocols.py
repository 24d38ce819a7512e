"""Every protocol against a loop over a dictionary, on random predictions with shuffled, missing and doubled keys."""

import io
import math
import zipfile

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unstill.pipeline.errors import InputError
from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.protocols import (
    conflicting_foreground,
    contrasted,
    correct,
    entropy,
    mirror_labels,
    per_class,
    reversed_keep_flip,
    share,
    source_video,
)


@st.composite
def paired(draw):
    """Two sets of predictions over the same keys, the second shuffled; few values, so that ties happen."""
    n, c, seed = draw(st.integers(1, 30)), draw(st.integers(2, 6)), draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    keys = tuple(f"video{i}__{i % 3}" for i in rng.permutation(100)[:n].tolist())
    labels, order = rng.integers(0, c, n), rng.permutation(n)
    logits = rng.integers(-2, 3, (2, n, c)).astype(np.float32)
    classes = tuple(f"class{i}" for i in range(c))
    first = Predictions(keys, labels, logits[0], classes, "scuba")
    second = Predictions(tuple(keys[i] for i in order), labels[order], logits[1][order], classes, "scufo")
    return first, second


def argmax(row):
    best = 0
    for i, value in enumerate(row):
        if value > row[best]:
            best = i
    return best


@settings(max_examples=60, deadline=None)
@given(paired())
def test_contrasted_accuracy_is_a_join_by_key(pair):
    scuba, scufo = pair
    twin = {key: argmax(row) for key, row in zip(scufo.keys, scufo.logits.tolist(), strict=True)}
    expected = [
        argmax(row) == label and twin[key] != label
        for key, row, label in zip(scuba.keys, scuba.logits.tolist(), scuba.labels.tolist(), strict=True)
    ]
    assert contrasted(scuba, scufo).tolist() == expected
    # the published form: right on SCUBA, and another class than on SCUBA for SCUFO
    aligned = scufo.aligned(scuba.keys, of="scuba")
    assert (correct(scuba) & (scuba.predicted != aligned.predicted)).tolist() == expected


@settings(max_examples=30, deadline=None)
@given(paired(), st.data())
def test_missing_doubled_and_relabelled_keys_are_named(pair, data):
    scuba, scufo = pair
    assume(len(scuba) > 1)
    n = data.draw(st.integers(0, len(scuba) - 1))
    key, rest = scufo.keys[n], [i for i in range(len(scufo)) if i != n]
    fewer = Predictions(tuple(scufo.keys[i] for i in rest), scufo.labels[rest], scufo.logits[rest], name="scufo")
    with pytest.raises(InputError, match=f"scufo: key '{key}' of scuba is missing"):
        contrasted(scuba, fewer)
    with pytest.raises(InputError, match=f"key '{key}'.*missing"):
        contrasted(fewer, scuba)
    doubled = [*range(len(scufo)), n]
    with pytest.raises(InputError, match=f"scufo: key '{key}' occurs 2 times"):
        Predictions(tuple(scufo.keys[i] for i in doubled), scufo.labels[doubled], scufo.logits[doubled], name="scufo")
    labels = scufo.labels.copy()
    labels[n] = (labels[n] + 1) % scufo.logits.shape[1]
    with pytest.raises(InputError, match=f"key '{key}': label"):
        contrasted(scuba, Predictions(scufo.keys, labels, scufo.logits, name="scufo"))


@settings(max_examples=40, deadline=None)
@given(paired(), st.integers(0, 2**32 - 1))
def test_conflicting_foreground(pair, seed):
    predictions = pair[0]
    c = predictions.logits.shape[1]
    away = np.random.default_rng(seed).integers(1, c, len(predictions))
    still = dict(zip(predictions.keys, ((predictions.labels + away) % c).tolist(), strict=True))
    scores = conflicting_foreground(predictions, still)
    for i, key in enumerate(predictions.keys):
        row, label = predictions.logits[i].tolist(), int(predictions.labels[i])
        assert scores.dynamic[i] == (argmax(row) == label)
        assert scores.static[i] == (argmax(row) == still[key])
        assert scores.preference[i] == (row[label] > row[still[key]])
    key = predictions.keys[-1]
    with pytest.raises(InputError, match=f"key '{key}'.*they must conflict"):
        conflicting_foreground(predictions, still | {key: int(predictions.labels[-1])})
    with pytest.raises(InputError, match="key 'other' of the static labels is missing"):
        conflicting_foreground(predictions, still | {"other": 0})
    del still[key]
    with pytest.raises(InputError, match=f"static labels: key '{key}'"):
        conflicting_foreground(predictions, still)


@settings(max_examples=40, deadline=None)
@given(paired())
def test_reversed_keep_and_flip_count_only_mirrored_classes(pair):
    predictions = pair[0]
    mirror = mirror_labels(predictions.classes, {"class0": "class1", "class1": "class0"})
    rows = [i for i, label in enumerate(predictions.labels.tolist()) if label in (0, 1)]
    if not rows:
        with pytest.raises(InputError, match="no video's class has a mirror class"):
            reversed_keep_flip(predictions, mirror)
        return
    keep, flip, counted = reversed_keep_flip(predictions, mirror)
    assert counted.tolist() == rows
    for k, i in enumerate(rows):
        said, label = argmax(predictions.logits[i].tolist()), int(predictions.labels[i])
        assert keep[k] == (said == label) and flip[k] == (said == 1 - label)


def test_mirror_map_must_lead_back_and_name_classes():
    with pytest.raises(InputError, match="'up' is no class"):
        mirror_labels(("left", "right"), {"left": "up"})
    with pytest.raises(InputError, match="does not become 'left'"):
        mirror_labels(("left", "right", "up"), {"left": "right", "right": "up", "up": "right"})
    assert mirror_labels(("b", "a", "c"), {"a": "b", "b": "a"}).tolist() == [1, 0, -1]


@settings(max_examples=40, deadline=None)
@given(paired())
def test_entropy_and_means(pair):
    predictions = pair[0]
    for found, row in zip(entropy(predictions), predictions.logits.astype(float), strict=True):
        p = [math.exp(v) / sum(map(math.exp, row)) for v in row]
        assert found == pytest.approx(-sum(v * math.log(v) for v in p) / math.log(len(row)))
    classes = per_class(correct(predictions), predictions)
    weights = {name: float(np.mean(predictions.labels == int(name[5:]))) for name in classes}
    assert sum(classes[n] * weights[n] for n in classes) == pytest.approx(100 * correct(predictions).mean())
    huge = Predictions(("a",), np.array([0]), np.array([[1e38, -1e38]]))
    assert entropy(huge).tolist() == [0.0]


def test_intervals_follow_the_clusters_not_the_samples():
    rng = np.random.default_rng(0)
    one_each = rng.random(200) < 0.7
    alone = share(one_each, [f"v{i}" for i in range(200)])
    # five identical composites of each video say nothing more than one: the same interval from 1000 samples
    five = share(np.repeat(one_each, 5), [f"v{i}__{k}" for i in range(200) for k in range(5)])
    assert (five.samples, five.clusters) == (1000, 200)
    assert five.value == pytest.approx(alone.value)
    assert five.low == pytest.approx(alone.low, abs=0.2) and five.high == pytest.approx(alone.high, abs=0.2)
    # no spread: Wilson's interval for the clusters, not a point
    none = share(np.zeros(100), [f"v{i}" for i in range(100)])
    assert none.low == 0 and none.high == pytest.approx(100 * 3.8415 / 103.8415, abs=0.01)
    assert source_video("clip__12") == "clip" and source_video("clip__b") == "clip__b" and source_video("7") == "7"


def test_intervals_cover_the_truth():
    rng, hits = np.random.default_rng(1), 0
    keys = [f"v{i}__{k}" for i in range(80) for k in range(4)]
    for _ in range(300):
        p = rng.beta(4, 4, 80)  # videos differ: true mean 0.5
        interval = share(rng.random(320) < np.repeat(p, 4), keys)
        hits += interval.low <= 50 <= interval.high
    assert 0.91 <= hits / 300 <= 0.985


def test_predictions_files(tmp_path):
    rng = np.random.default_rng(0)
    predictions = Predictions(("a", "b", "c"), np.array([0, 1, 1]), rng.normal(size=(3, 2)), ("x", "y"), "p")
    predictions.save(tmp_path / "p.npz")
    lines = ["key,label,x,y"] + [
        f"{k},{n},{r[0]!r},{r[1]!r}"
        for k, n, r in zip(predictions.keys, predictions.labels, predictions.logits.tolist(), strict=True)
    ]
    (tmp_path / "p.csv").write_text("\n".join(lines))
    for path in (tmp_path / "p.npz", tmp_path / "p.csv"):
        again = Predictions.load(path)
        assert again.keys == predictions.keys and again.classes == ("x", "y")
        assert np.array_equal(again.labels, predictions.labels) and np.array_equal(again.logits, predictions.logits)
    for text, message in (("key,label,x\na,0,zero", "not saved predictions"), ("a,b\n", "the columns begin")):
        (tmp_path / "bad.csv").write_text(text)
        with pytest.raises(InputError, match=message):
            Predictions.load(tmp_path / "bad.csv")
    with pytest.raises(InputError, match="no such file"):
        Predictions.load(tmp_path / "none.npz")
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:  # 10 GB in 10 MB, or in nothing
        for name, said in (("labels", 3), ("logits", 2_500_000_000)):
            header = io.BytesIO()
            np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (said, 1)})
            archive.writestr(f"{name}.npy", header.getvalue() + bytes(12))
    (tmp_path / "noise.npz").write_bytes(rng.bytes(5000))
    for name, message in (("bomb", r"logits.npy is an array of 10,000,000,000 bytes"), ("noise", "not saved predic")):
        with pytest.raises(InputError, match=message):
            Predictions.load(tmp_path / f"{name}.npz")
    with pytest.raises(InputError, match="label 2 of key 'b' is no class"):
        Predictions(("a", "b"), np.array([0, 2]), np.zeros((2, 2)))
    with pytest.raises(InputError, match="logit of key 'b' is not finite"):
        Predictions(("a", "b"), np.array([0, 1]), np.array([[0, 0], [np.nan, 0]]))
