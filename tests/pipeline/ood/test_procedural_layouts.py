"""The procedural dataset in the layouts of the real downloads, through the commands that their users type."""

import csv
import json
import os
import pickle
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import resnet18

from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.world import CLASSES, MotionsConfig, video

EXAMPLES = Path(__file__).parents[3] / "examples"
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


@pytest.fixture
def downloads(tmp_path, rendered, mat_file):
    """HMDB51, JHMDB's masks, UCF101, its boxes and masks, and pictures for backgrounds, as they are downloaded."""
    root = tmp_path / "downloads"
    hmdb, splits, puppets = root / "hmdb51_org", root / "testTrainMulti_7030_splits", root / "puppet_mask"
    ucf, lists, png, boxes = (root / name for name in ("UCF-101", "ucfTrainTestlist", "masks", "pyannot.pkl"))
    for folder in (splits, lists, root / "places365"):
        folder.mkdir(parents=True)
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
    (lists / "trainlist01.txt").write_text("\n".join(f"{n} 1" for n in names["train"]))
    for n, colour in enumerate(("darkred", "navy")):
        Image.new("RGB", (48, 40), colour).save(root / "places365" / f"{n}.jpg")
    (root / "ReCompress_Videos").symlink_to(hmdb)
    return root


@pytest.mark.slow
def test_hmdb51_and_ucf101(tmp_path, downloads, capsys):
    hmdb, splits, puppets = (
        downloads / "hmdb51_org",
        downloads / "testTrainMulti_7030_splits",
        downloads / "puppet_mask",
    )
    ucf, lists, png = downloads / "UCF-101", downloads / "ucfTrainTestlist", downloads / "masks"
    boxes = downloads / "pyannot.pkl"
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
    features = {"scufo_feature_probe"}  # saved logits have none
    assert percent(saved) == {name: value for name, value in percent(out).items() if name not in features}
    assert "1 x 1, centre" in (saved / "evaluation.tex").read_text()  # the views that the logits were made with


SMALL_TRAINING = (
    "--model.name motion_cnn --model.weights none --clip.frames 8 --clip.stride 1 --clip.size 32 --epochs 1 "
    "--schedule.warmup-epochs 0.1 "
    "--batch-size 4 --step.compile off --device cpu --memory-check off"
)
SMALL = {
    "SEEDS": "0 1",
    "CONVERT": "--codec vp9 --short-side 32 --workers 1",
    "TRAIN": SMALL_TRAINING,
    "OOD": "--per-video 1 --workers 1",
    "EVALUATE": "--device cpu",
}


def run_example(unstill, script, folder, **variables):
    environment = os.environ | SMALL | {"UNSTILL": unstill, "OMP_NUM_THREADS": "1"} | variables
    found = subprocess.run(["sh", EXAMPLES / script], cwd=folder, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    return found


@pytest.mark.slow
def test_the_published_comparison_on_hmdb51(tmp_path, downloads, unstill):
    """From the layout of the downloads to one table; COMPARED and SEEDS in the environment: other methods and seeds."""
    people = ["video,frame,left,top,right,bottom"]
    for label in CLASSES:
        people += [f"{label}_{label}_train_u_cm_np1,{frame},0.2,0.2,0.8,0.8" for frame in range(WORLD.frames)]
    (downloads / "people.csv").write_text("\n".join(people))
    torch.save(resnet18(num_classes=365).state_dict(), downloads / "resnet50_places365.pth.tar")
    torch.save(resnet18(num_classes=1000).state_dict(), downloads / "resnet50_imagenet.pth")
    small = "--device cpu --batch-size 4"
    methods = os.environ.get("COMPARED", "stillmix albar").split()
    seeds = os.environ.get("SEEDS", "0").split()
    run_example(
        unstill,
        "hmdb51.sh",
        tmp_path,
        METHODS=" ".join(methods),
        SEEDS=" ".join(seeds),
        REFERENCE=f"{small} --model.name unstill.trainer.models.frame_net:resnet18 --clip.size 32 --epochs 1 "
        "--step.compile off --memory-check off",
        BANK=f"{small} --size 32 --every 4 --stills 8",
        SCENES="--device cpu --frames 1",
    )
    with open(tmp_path / "results/hmdb51/table/evaluation.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if not row["class"]]
    models = {row["model"] for row in rows}
    assert models == {f"hmdb51_{method}_seed{seed}" for method in methods for seed in seeds}
    assert {"iid", "scuba", "scufo", "scufo_least", "scufo_probe", "conflfg", "contrasted"} <= {
        row["measure"] for row in rows
    }
    assert {row["background"] for row in rows} == {"", "stripe", "places365"}
    spread = json.loads((tmp_path / "results/hmdb51/table/evaluation.json").read_text())["across_seeds"]
    assert spread["hmdb51_albar"]["iid"]["runs"] == len(seeds)


@pytest.mark.slow
def test_the_published_comparison_on_ucf101(tmp_path, downloads, unstill):
    run_example(unstill, "ucf101.sh", tmp_path, SEEDS="0")
    with open(tmp_path / "results/ucf101/evaluation.csv", newline="") as file:
        backgrounds = {row["background"] for row in csv.DictReader(file)}
    assert backgrounds == {"", *(f"{kind}_{where}" for kind in ("boxes", "masks") for where in ("stripe", "places365"))}
    assert (tmp_path / "bias/ucf101/review.csv").exists()
