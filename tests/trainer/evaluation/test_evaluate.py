"""The evaluator on real shards: right keys, labels and clips, against a decode with PyAV and a scoring by hand."""

import csv
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from torch import nn

import unstill
from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig, ViewConfig
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import CLASSES, MIRROR_CLASS, MotionsConfig
from unstill.trainer.evaluation.config import EvaluateOptions, TestSets
from unstill.trainer.evaluation.derived_clips import as_filmed, backwards, still_frame
from unstill.trainer.evaluation.evaluate import clips_of, evaluate, predict
from unstill.trainer.evaluation.subject import Subject
from unstill.trainer.evaluation.truth import labels_from_csv, read_truth

OPTIONS = EvaluateOptions(device="cpu", batch_size=5)


class Weighed(nn.Module):
    """Logits are a fixed linear map of how colourful each frame's left half is: place and order both matter."""

    def __init__(self, seed, frames=8):
        super().__init__()
        self.head = nn.Linear(frames, 8)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(np.random.default_rng(seed).normal(size=(8, frames)) * 30))
            self.head.bias.zero_()

    def forward(self, x):
        return self.head((x.amax(1) - x.amin(1))[..., : x.shape[-1] // 2].mean((2, 3)))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("motions")
    config = MotionsConfig(out=root / "videos", test=16, splits=("iid", "scuba", "conflfg"), workers=1)
    for split, folder in write_motions(config).items():
        convert(ConvertConfig(source=folder, out=root / split, codec="vp9", short_side=64, workers=1))
    return root


def subject(name, seed, classes=CLASSES, size=64):
    clip = ClipConfig(frames=8, stride=1, size=size)
    return Subject(name, Weighed(seed).eval(), classes, clip, (110 / 255,) * 3, (60 / 255,) * 3)


@pytest.mark.slow
def test_predictions_match_the_videos_in_the_shards(data):
    one, other = subject("one", 0), subject("other", 1, CLASSES[::-1])
    found = predict([one, other], data / "iid", {"iid": as_filmed, "reversed": backwards}, OPTIONS)
    distances = []
    assert set(found) == {(m, t) for m in ("one", "other") for t in ("iid", "reversed")}
    for name in ("one", "other"):
        model, classes = (one, CLASSES) if name == "one" else (other, CLASSES[::-1])
        for turn, step in (("iid", 1), ("reversed", -1)):
            predictions = found[name, turn]
            assert sorted(predictions.keys) == sorted(f"{CLASSES[i % 8]}_{i:06d}" for i in range(16))
            for key, label, logits in zip(predictions.keys, predictions.labels, predictions.logits, strict=True):
                cls, number = key.rsplit("_", 1)
                assert classes[label] == cls
                with av.open(str(data / "videos/iid" / cls / f"{number}.mp4")) as container:
                    frames = np.stack([f.to_ndarray(format="rgb24") for f in container.decode(video=0)])
                x = torch.from_numpy((frames[::step] - 110.0) / 60).float().permute(3, 0, 1, 2)[None]
                expected = model.model(x)[0].detach().numpy()
                # the shards are a second encoding, which changes colours by a few of the 60 grey levels in a unit
                bound = model.model.head.weight.detach().norm(dim=1).numpy() * 5 / 60
                assert (np.abs(logits - expected) < bound).all(), key
                distances.append(np.abs(logits - model.model(x.flip(2))[0].detach().numpy()).max() / bound.max())
    assert np.quantile(distances, 0.8) > 2  # the bound tells forwards from backwards, where the colour moves sideways


@pytest.mark.slow
def test_scufo_is_the_stored_frame_of_scuba(data):
    seen = {}

    class Recorder(Weighed):
        def forward(self, x):
            seen.setdefault(len(seen), x)
            return super().forward(x)

    recorder = replace(subject("recorder", 0), model=Recorder(0).eval())
    sets = TestSets(scuba={"unseen": data / "scuba"})
    options = replace(OPTIONS, batch_size=16)
    result = evaluate([recorder], sets, options)["recorder"]
    scuba, scufo = seen[0], seen[1]
    index = still_frame(result.predictions["scuba.unseen"].keys, 8)
    for b in range(16):
        assert torch.equal(scufo[b], scuba[b][:, index[b] : index[b] + 1].expand_as(scufo[b]))


def test_a_whole_evaluation_agrees_with_its_predictions(data):
    sets = TestSets(
        iid=data / "iid",
        scuba={"unseen": data / "scuba"},
        conflfg=data / "conflfg",
        conflfg_truth=data / "videos/truth/conflfg.csv",
        others={"again": data / "iid"},
        mirror=MIRROR_CLASS,
    )
    results = evaluate([subject("one", 0), subject("other", 1)], sets, OPTIONS)
    for result in results.values():
        values = result.card.values()
        assert values["again"] == values["iid"]
        scuba, scufo = result.predictions["scuba.unseen"], result.predictions["scufo.unseen"]
        assert scuba.keys == scufo.keys == result.predictions["conflfg"].keys == result.predictions["iid"].keys
        right, still = scuba.predicted == scuba.labels, scufo.predicted == scufo.labels
        assert values["contrasted"] == pytest.approx(100 * (right & ~still).mean())
        truth = read_truth(data / "videos/truth/conflfg.csv")
        conflfg = result.predictions["conflfg"]
        named = [CLASSES[p] == truth[k]["static_actor"] for k, p in zip(conflfg.keys, conflfg.predicted, strict=True)]
        assert values["conflfg_static"] == pytest.approx(100 * np.mean(named))
        flipped = [MIRROR_CLASS[CLASSES[y]] for y in result.predictions["reversed"].labels]
        said = [CLASSES[p] for p in result.predictions["reversed"].predicted]
        assert values["reversed_flip"] == pytest.approx(
            100 * np.mean([a == b for a, b in zip(said, flipped, strict=True)])
        )
    assert results["one"].card.values() != results["other"].card.values()
    given = {name: getattr(sets, name) for name in ("iid", "scuba", "conflfg", "conflfg_truth", "others", "mirror")}
    alone = unstill.evaluate(subject("one", 0), **given, device="cpu", batch_size=7)
    assert alone.shares == results["one"].card.shares


def test_views_are_averaged_as_probabilities(data):
    short = ClipConfig(frames=4, stride=1, size=64)
    model = replace(subject("short", 0), model=Weighed(0, frames=4).eval(), clip=short)
    single = [
        predict([model], data / "iid", {"x": as_filmed}, replace(OPTIONS, views=ViewConfig(anchor=anchor)))[
            "short", "x"
        ]
        for anchor in ("first", "centre")
    ]
    views = predict([model], data / "iid", {"x": as_filmed}, replace(OPTIONS, views=ViewConfig(temporal=3)))[
        "short", "x"
    ]
    softmax = lambda z: np.exp(z) / np.exp(z).sum(1, keepdims=True)  # noqa: E731
    assert np.exp(views.logits).sum(1) == pytest.approx(np.ones(16), abs=1e-5)
    last = 3 * softmax(views.logits) - softmax(single[0].logits) - softmax(single[1].logits)  # what the third view said
    assert last.min() > -1e-4 and last.sum(1) == pytest.approx(np.ones(16), abs=1e-3)


def test_what_cannot_be_evaluated_is_named(data, tmp_path):
    with pytest.raises(InputError, match="no test set given"):
        evaluate([subject("one", 0)], TestSets(), OPTIONS)
    with pytest.raises(InputError, match="two have one name"):
        evaluate([subject("one", 0), subject("one", 1)], TestSets(iid=data / "iid"), OPTIONS)
    with pytest.raises(InputError, match="clips of different shapes"):
        evaluate([subject("one", 0), subject("two", 1, size=32)], TestSets(iid=data / "iid"), OPTIONS)
    with pytest.raises(InputError, match="class 'zoom_out' is none of the 8 that one knows"):
        evaluate([subject("one", 0, (*CLASSES[:7], "other"))], TestSets(iid=data / "iid"), OPTIONS)
    with pytest.raises(InputError, match="not readable"):
        labels_from_csv(tmp_path / "truth.csv", "static_actor", CLASSES)
    with open(tmp_path / "truth.csv", "w", newline="") as file:
        csv.writer(file).writerows([["key", "static_actor"], ["a", "sideways"]])
    with pytest.raises(InputError, match="no column or class 'sideways'"):
        labels_from_csv(tmp_path / "truth.csv", "static_actor", CLASSES)
    (tmp_path / "truth.csv").write_text("key,static_actor\na,left\na,right\n")
    with pytest.raises(InputError, match="key 'a' occurs twice"):
        labels_from_csv(tmp_path / "truth.csv", "static_actor", CLASSES)
    with pytest.raises(InputError, match=r"'v1\.2': the names of sets and backgrounds take no dot"):
        clips_of(TestSets(scuba={"v1.2": data / "iid"}), 0)
