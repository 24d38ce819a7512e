"""The procedural dataset in the layouts of the real downloads, through the commands that their users type."""

import csv
import pickle

import av
import numpy as np
import pytest
from PIL import Image

from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.world import CLASSES, MotionsConfig, video

WORLD = MotionsConfig(size=32, frames=8)


def write_avi(path, frames):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=8, options={"qscale": "2", "flags": "+qscale"})
        stream.height, stream.width, stream.pix_fmt = WORLD.size, WORLD.size, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def rendered():
    """Split -> (class, frames, masks) of one video a class."""
    found = {}
    for split in ("train", "iid"):
        found[split] = []
        for index in range(8):
            frames, mask, who = video(WORLD, split, index)
            found[split].append((CLASSES[who.label], frames, mask >= 128))
    return found


def command(*arguments):
    assert run([str(argument) for argument in arguments]) == 0


def percent(folder):
    with open(folder / "evaluation.csv", newline="") as file:
        return {row["measure"]: float(row["percent"]) for row in csv.DictReader(file) if not row["class"]}


@pytest.mark.slow
def test_hmdb51_and_ucf101(tmp_path, rendered, mat_file, capsys):
    hmdb, splits, puppets = tmp_path / "hmdb51_org", tmp_path / "splits", tmp_path / "puppet_mask"
    ucf, lists, png, boxes = (tmp_path / name for name in ("UCF-101", "ucfTrainTestlist", "png", "pyannot.pkl"))
    splits.mkdir(), lists.mkdir()
    names, annotated = {"train": [], "iid": []}, {}
    for label in CLASSES:
        rows = []
        for flag, split in ((1, "train"), (2, "iid")):
            frames, masks = next((f, m) for name, f, m in rendered[split] if name == label)
            name = f"{label}_{split}_u_cm_np1"
            write_avi(hmdb / label / f"{name}.avi", frames)
            rows.append(f"{name}.avi {flag}")
            (puppets / label / name).mkdir(parents=True)
            packed = np.ascontiguousarray(masks.transpose(1, 2, 0)).astype(np.uint8)
            (puppets / label / name / "puppet_mask.mat").write_bytes(mat_file("part_mask", packed))
            name = f"{label}/v_{label}_{split}_g01_c01"
            write_avi(ucf / f"{name}.avi", frames)
            names[split].append(f"{name}.avi")
            (png / name).mkdir(parents=True)
            tube = []
            for t, mask in enumerate(masks):
                Image.fromarray(mask.astype(np.uint8) * 255).save(png / name / f"{t:05}.png")
                y, x = np.nonzero(mask)
                tube.append((x.min() + 1, y.min() + 1, x.max() + 1 - x.min(), y.max() + 1 - y.min()))
            tube = {"label": 0, "sf": 0, "ef": len(masks), "boxes": np.array(tube, np.uint8)}
            annotated[name] = {"annotations": [tube], "numf": len(masks), "label": 0}
        (splits / f"{label}_test_split1.txt").write_text("\n".join(rows))
    (lists / "classInd.txt").write_text("\n".join(f"{n + 1} {label}" for n, label in enumerate(CLASSES)))
    (lists / "testlist01.txt").write_text("\n".join(names["iid"]))
    boxes.write_bytes(pickle.dumps(annotated, 2))

    train, model = tmp_path / "data" / "train", tmp_path / "model"
    vp9 = ("--codec", "vp9", "--short-side", 32, "--workers", 1)
    command("convert", hmdb, train, "--labels", splits, "--split", "train1", *vp9)
    command("train", "demo_baseline", "--data", train, "--out", model, "--epochs", 1, "--batch-size", 8)

    test = ("--labels", splits, "--split", "test1", "--mask-from", "jhmdb")
    common = ("--per-video", 1, "--like", train, "--workers", 1)
    command("ood", "build", hmdb, puppets, tmp_path / "hs", *test, *common)
    command("ood", "build", hmdb, puppets, tmp_path / "hc", *test, *common, "--kind", "conflfg")
    test = ("--labels", lists / "testlist01.txt")
    command("ood", "build", ucf, png, tmp_path / "um", *test, *common, "--mask-from", "segmentation")
    command("ood", "build", ucf, boxes, tmp_path / "ub", *test, *common, "--mask-from", "boxes")
    command("ood", "check", ucf, png, tmp_path / "review.csv", *test, "--boxes", boxes)
    assert "boxes let background through" in capsys.readouterr().out

    out = tmp_path / "out"
    conflfg = ("--conflfg", tmp_path / "hc/shards", "--conflfg-truth", tmp_path / "hc/truth.csv")
    command("evaluate", model, "--device", "cpu", "--scuba", "stripe", tmp_path / "hs/shards", *conflfg, "--out", out)
    assert {"scuba", "scufo", "contrasted", "conflfg", "conflfg_static", "conflfg_preference"} <= set(percent(out))
    ucf_sets = ("--scuba", "masks", tmp_path / "um/shards", "boxes", tmp_path / "ub/shards")
    command("evaluate", model, "--device", "cpu", *ucf_sets, "--out", tmp_path / "ucf")
    with open(tmp_path / "ucf/evaluation.csv", newline="") as file:
        assert {row["background"] for row in csv.DictReader(file)} == {"", "masks", "boxes"}
    saved = tmp_path / "again"
    command("evaluate", "--logits", out / "predictions", "--conflfg-truth", tmp_path / "hc/truth.csv", "--out", saved)
    assert percent(saved) == percent(out)
    assert "1 x 1, centre" in (saved / "evaluation.tex").read_text()  # the views that the logits were made with
