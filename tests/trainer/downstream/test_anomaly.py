"""Anomaly detection: annotations as published, losses against plain loops, the time axis, the command."""

import dataclasses
import itertools
import json

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.trainer.cli.main import run
from unstill.trainer.downstream.anomaly.annotations import (
    AnnotatedVideo,
    TrainVideo,
    frame_truth,
    problem_of,
    read_train_list,
    read_truth,
)
from unstill.trainer.downstream.anomaly.config import AnomalyConfig
from unstill.trainer.downstream.anomaly.evaluation import run_anomaly
from unstill.trainer.downstream.anomaly.heads import HEADS, MilRanking, mil_ranking_loss, top_magnitude_loss
from unstill.trainer.downstream.anomaly.segments import even_segments, ranking_segments
from unstill.trainer.downstream.anomaly.training import bag_of, score_rows
from unstill.trainer.downstream.feature_folder import RECORD, FeatureFolder, row_of_frame

TRUTH = """Abuse028_x264.mp4  Abuse  165  240  -1  -1
Arson011_x264.mp4 Arson 150 420 680 1267
Normal_Videos_003_x264.mp4  Normal  -1  -1  -1  -1
"""


def test_the_published_lists_are_read(tmp_path):
    (tmp_path / "truth.txt").write_text(TRUTH)
    (tmp_path / "train.txt").write_text(
        "Abuse/Abuse001_x264.mp4\nTraining_Normal_Videos_Anomaly/Normal_Videos001_x264.mp4\n"
    )
    assert read_truth(tmp_path / "truth.txt") == [
        AnnotatedVideo("Abuse028_x264", "Abuse", ((165, 240),)),
        AnnotatedVideo("Arson011_x264", "Arson", ((150, 420), (680, 1267))),
        AnnotatedVideo("Normal_Videos_003_x264", "Normal", ()),
    ]
    train = read_train_list(tmp_path / "train.txt")
    assert train == [TrainVideo("Abuse001_x264", True), TrainVideo("Normal_Videos001_x264", False)]
    (tmp_path / "train.txt").write_text("Abnormal/a.mp4\nnormal/b.mp4\n")
    assert read_train_list(tmp_path / "train.txt") == [TrainVideo("a", True), TrainVideo("b", False)]
    truth = frame_truth(AnnotatedVideo("v", "Abuse", ((3, 5), (0, 1))), 6)
    assert truth.tolist() == [True, False, True, True, True, False]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("Abuse028_x264.mp4 Abuse 1 2 3\n", "line 1 is"),
        ("Abuse028_x264.mp4 165 240\n", "line 1 is"),
        (TRUTH + TRUTH, "names Abuse028_x264 twice"),
        ("\n", "is empty"),
    ],
)
def test_lines_of_another_form_are_named(tmp_path, text, says):
    (tmp_path / "truth.txt").write_text(text)
    with pytest.raises(InputError, match=says):
        read_truth(tmp_path / "truth.txt")


@pytest.mark.parametrize(
    ("anomalies", "label", "fps", "says"),
    [
        (((10, 20),), "Abuse", 30.0, None),
        (((10, 116),), "Abuse", 30.0, None),  # at most a window beyond the end
        (((0, 20), (21, 30)), "Abuse", None, None),
        (((10, 117),), "Abuse", 30.0, "beyond the 100 frames"),
        (((101, 110),), "Abuse", 30.0, "beyond the 100 frames"),
        (((20, 10),), "Abuse", 30.0, "reversed"),
        (((10, 20), (20, 30)), "Abuse", 30.0, "overlaps"),
        (((10, -1),), "Abuse", 30.0, "one end only"),
        (((10, 20),), "Abuse", 25.0, "25 frames/s, annotation at 30"),
        (((10, 20),), "Normal", 30.0, "a normal video with"),
        ((), "Abuse", 30.0, "no anomaly"),
    ],
)
def test_annotations_that_do_not_fit_the_video(anomalies, label, fps, says):
    found = problem_of(AnnotatedVideo("v", label, anomalies), 100, fps, 30.0, 16)
    assert found is None if says is None else says in (found or "")


def test_the_ranking_loss_is_the_authors():
    g = torch.Generator().manual_seed(0)
    abnormal, normal = (torch.rand(3, 32, generator=g, dtype=torch.float64) for _ in range(2))
    expected = 0.0
    for n in normal:
        expected += sum(max(0.0, 1 - float(a.max()) + float(n.max())) for a in abnormal) / 3
    for a in abnormal.tolist():
        expected += 8e-5 * sum(a) + 8e-5 * sum((x - y) ** 2 for x, y in zip(a[1:], a[:-1], strict=True))
    assert float(mil_ranking_loss(abnormal, normal)) == pytest.approx(expected, rel=1e-12)


def test_weights_decay_but_not_biases():
    torch.manual_seed(0)
    head, bags = MilRanking(6).eval(), torch.rand(2, 2, 32, 6)
    weights = sum(
        float(layer.weight.detach().square().sum()) for layer in head.layers if isinstance(layer, torch.nn.Linear)
    )
    plain = float(mil_ranking_loss(head(bags[0]), head(bags[1])).detach())
    assert float(head.loss(bags[0], bags[1]).detach()) == pytest.approx(plain + 1e-3 * weights, rel=1e-6)


def test_the_magnitude_loss_by_hand():
    g = torch.Generator().manual_seed(1)
    bags = [torch.rand(2, 7, 5, generator=g, dtype=torch.float64) for _ in range(2)]
    scores = [0.1 + 0.8 * torch.rand(2, 7, generator=g, dtype=torch.float64) for _ in range(2)]
    entropy, lengths, rows = 0.0, ([], []), ([], [])
    for side in (0, 1):
        for bag, score in zip(bags[side].numpy(), scores[side].numpy(), strict=True):
            best = sorted(range(7), key=lambda s: -np.linalg.norm(bag[s]))[:3]
            rows[side].append(best)
            p = np.mean([score[s] for s in best])
            entropy -= np.log(p if side == 0 else 1 - p) / 4
            lengths[side].append(np.linalg.norm(np.mean([bag[s] for s in best], axis=0)))
    margin = np.mean([(abs(100 - a) + n) ** 2 for a, n in zip(*lengths, strict=True)])
    a = scores[0].numpy()
    expected = entropy + 1e-4 * margin + 8e-4 * ((a[:, 1:] - a[:, :-1]) ** 2).sum()
    expected += 8e-3 * np.sqrt((a**2).sum())
    assert float(top_magnitude_loss(*bags, *scores, *map(torch.tensor, rows))) == pytest.approx(expected, rel=1e-12)


def matlab_segments(rows):
    """The 32 segments of Save_C3DFeatures_32Segments.m in its own terms: rows count from 1, ends are included."""
    shots = [int(1 + k * (rows - 1) / 32 + 0.5) for k in range(33)]
    found = []
    for first, after in itertools.pairwise(shots):
        last = after - 1
        found.append(list(range(first, last + 1)) if last >= first else [first])
    return found


def test_segments_are_those_of_the_authors():
    for rows in range(1, 400):
        ours = [[row + 1 for row in range(first, end)] for first, end in ranking_segments(rows)]
        assert ours == matlab_segments(rows)
        in_a_segment = {row for rows_of in ours for row in rows_of}
        assert in_a_segment == set(range(1, rows + 1 if rows <= 17 else rows))  # their last row
        r = [int(k * rows / 32) for k in range(33)]  # RTFM's process_feat
        expected = [(a, b) if a < b else (a, a + 1) for a, b in itertools.pairwise(r)]
        assert even_segments(rows) == expected
    bag = bag_of(np.arange(24, dtype=np.float32).reshape(4, 2, 3), HEADS["mil"])
    assert bag.shape == (2, 32, 3) and np.linalg.norm(bag, axis=2) == pytest.approx(1, abs=1e-6)


def test_a_row_behind_the_last_segment_has_its_score():
    torch.manual_seed(0)
    rows = np.random.default_rng(0).normal(size=(40, 1, 6)).astype(np.float32)
    scores = score_rows(MilRanking(6).eval(), HEADS["mil"], rows, "cpu")
    assert scores.shape == (40,) and scores[-1] == scores[-2] > 0


def test_each_frame_belongs_to_the_window_whose_middle_is_nearest():
    for frames, window, stride in ((100, 16, 16), (37, 16, 4), (40, 5, 3), (3, 16, 16)):
        rows = max(0, frames - window) // stride + 1
        middle = np.arange(rows) * stride + (window - 1) / 2
        nearest = np.abs(np.arange(frames)[:, None] - middle).argmin(1)
        assert row_of_frame(frames, rows, window, stride).tolist() == nearest.tolist()


def make_world(folder, shift: float, record: bool = False):
    """Lists and features of 24 training and 8 test videos; anomalies move the first number, ``shift`` the others."""
    g, names, truth, videos = np.random.default_rng(5), [], [], {}
    (folder / "features").mkdir(parents=True)
    for number in range(32):
        abnormal, test = number % 2 == 1, number >= 24
        rows = 40
        values = 0.3 * g.normal(size=(rows, 1, 8)).astype(np.float32)
        if abnormal:
            values[10:16, :, 0] += 3
            values[:, :, 1] += shift if not test else -shift  # a look that goes with the label in training only
        name = f"{'Abuse' if abnormal else 'Normal_Videos_'}{number:03}_x264"
        np.save(folder / "features" / f"{name}.npy", values if number % 3 else values[:, 0])
        videos[name] = {"frames": rows * 16 + 5, "fps": 30.0}
        if test:
            truth.append(f"{name}.mp4 {'Abuse 161 256' if abnormal else 'Normal -1 -1'} -1 -1\n")
        else:
            names.append(f"{'Abuse' if abnormal else 'Training_Normal_Videos_Anomaly'}/{name}.mp4\n")
    if record:
        (folder / "features" / RECORD).write_text(json.dumps({"window": 16, "stride": 16, "videos": videos}))
    (folder / "train.txt").write_text("".join(names))
    (folder / "truth.txt").write_text("".join(truth))
    return AnomalyConfig(
        features=(folder / "features",),
        train_list=folder / "train.txt",
        truth=folder / "truth.txt",
        steps=25,
        seeds=(0,),
        resamples=50,
        device="cpu",
    )


@pytest.mark.slow
@pytest.mark.parametrize("head", sorted(HEADS))
def test_a_head_finds_when_it_happens_and_a_look_misleads_it(tmp_path, caplog, head):
    honest, misled = make_world(tmp_path / "debiased", 0.0, record=True), make_world(tmp_path / "baseline", 4.0)
    both = dataclasses.replace(honest, features=(*misled.features, *honest.features), head=head)
    with pytest.raises(InputError, match="645 frames in different folders"):
        run_anomaly(both)  # the record has 5 frames behind the last window, a folder without record cannot know
    (honest.features[0] / RECORD).unlink()
    test, results = run_anomaly(both)
    assert "has no features.json: its frame rate cannot be checked" in caplog.text
    auc = [result.measures.roc_auc.value for result in results]
    assert auc[1] > 0.9 > auc[0]
    assert results[0].difference is None
    gain = results[1].difference
    assert gain is not None and gain.roc_auc.value == pytest.approx(auc[1] - auc[0]) and gain.roc_auc.low > 0
    assert len(test.videos) == 8 and sum(t.sum() for t in test.truth) == 4 * 96
    again = run_anomaly(dataclasses.replace(honest, head=head))[1][0]
    assert all(np.array_equal(a, b) for a, b in zip(again.scores[0], results[1].scores[0], strict=True))


def test_the_command_writes_numbers_scores_and_timelines(tmp_path, capsys):
    config = make_world(tmp_path, 0.0, record=True)
    out = tmp_path / "out"
    lists = ["--train-list", str(config.train_list), "--truth", str(config.truth)]
    few = ["--steps", "20", "--seeds", "3", "--resamples", "20", "--timelines", "2", "--device", "cpu"]
    assert run(["anomaly", str(config.features[0]), *lists, *few, "--out", str(out)]) == 0
    record = json.loads((out / "anomaly.json").read_text())
    assert record["test_frames"] == 8 * 645 and record["abnormal_frames"] == 4 * 96
    assert 0 <= record["models"]["features"]["measures"]["roc_auc"]["value"] <= 1
    assert len(list(out.glob("timeline_*.png"))) == 2
    with np.load(out / "scores" / "features_seed3.npz") as scores:
        assert scores["Abuse025_x264"].shape == scores["Abuse025_x264.truth"].shape == (645,)
    assert "ROC-AUC" in capsys.readouterr().out


def test_bad_test_videos_are_refused_or_left_out_and_counted(tmp_path):
    config = make_world(tmp_path, 0.0, record=True)
    text = config.truth.read_text().replace("Abuse 161 256", "Abuse 161 2560", 1)
    config.truth.write_text(text + "Abuse999_x264.mp4 Abuse 1 2 -1 -1\n")
    with pytest.raises(InputError, match=r"2 of 9 test videos cannot be used: Abuse025_x264: .*2560 reaches beyond"):
        run_anomaly(config)
    test, _ = run_anomaly(dataclasses.replace(config, bad_annotations="leave-out", steps=1))
    assert len(test.videos) == 7 and len(test.left_out) == 2
    assert "Abuse999_x264: no features" in test.left_out[1]
    with pytest.raises(InputError, match="annotation at 25"):
        run_anomaly(dataclasses.replace(config, truth_fps=25.0))


def test_features_that_cannot_be_used_are_named(tmp_path):
    config = make_world(tmp_path, 0.0, record=True)
    folder = config.features[0]
    np.save(folder / "Abuse025_x264.npy", np.zeros((39, 1, 8), np.float32))
    with pytest.raises(InputError, match="39 rows, expected 40 of 645 frames"):
        run_anomaly(config)
    np.save(folder / "Abuse001_x264.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(InputError, match="Abuse001_x264"):
        FeatureFolder.open(folder).read("Abuse001_x264")
    np.save(folder / "x_Abuse003_x264.npy", np.zeros((1, 1)))
    assert FeatureFolder.open(folder).key_of("Abuse003_x264") == "Abuse003_x264"
    assert FeatureFolder.open(folder).key_of("Abuse003") is None
    (folder / "Abuse003_x264.npy").rename(folder / "y_Abuse003_x264.npy")
    with pytest.raises(InputError, match="both fit"):
        FeatureFolder.open(folder).key_of("Abuse003_x264")
