"""Sources: lists of videos in every layout, tars, masks and boxes."""

import io
import json
import pickle
import random
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mutations import mutated, mutated_json

from unstill.pipeline.ood.masks import open_masks
from unstill.pipeline.sources.layouts import SourceConfig, find_videos, read_classes

Cases = Iterator[Callable[[], str]]


def mask_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """Boxes and masks of one video."""
    tube = {"sf": 0, "ef": 2, "boxes": np.array([[1, 1, 5, 5], [2, 2, 5, 5]], np.uint8)}
    runs = [{"size": [16, 24], "counts": [100, 200, 84]}, {"size": [16, 24], "counts": "T3X6\\2"}, None]
    boxes = "video,frame,left,top,right,bottom\nv,0,1,2,3,4\nv,1,2.5,3,4,5\n"
    whole = {
        "a.pkl": pickle.dumps({"v": {"annotations": [tube]}}, 2),
        "a.csv": boxes.encode(),
        "a.json": json.dumps({"v": {"0": [[1, 2, 3, 4]], "1": [[2, 3, 4, 5]]}}).encode(),
        "v.json": json.dumps(runs).encode(),
    }
    for _ in range(cases):
        name = rng.choice(list(whole))
        (folder / name).write_bytes(mutated(whole[name], rng))

        def read(name=name) -> str:
            path, kind = (folder, "segmentation") if name == "v.json" else (folder / name, "boxes")
            masks = open_masks(path, kind)("v", (3, 16, 24))
            return "nothing" if masks is None else f"{masks.shape[1:] == (16, 24) and masks.dtype == bool}"

        yield read


LISTS = {
    ("kinetics", "k.csv", "train"): "label,youtube_id,time_start,time_end,split\nhop,abcdefghijk,1,11,train\n",
    ("ucf101", "trainlist01.txt", None): "hop/1.mp4 1\nrun/2.mp4 2\n",
    ("diving48", "Diving48_V2_train.json", None): '[{"vid_name": "1", "label": 0}, {"vid_name": "2", "label": 1}]',
    ("something", "train.json", None): '[{"id": "1", "template": "Holding [x]"}, {"id": "2", "template": "Run"}]',
    ("segments", "anet.json", "training"): json.dumps(
        {"database": {"1": {"subset": "training", "annotations": [{"segment": [0.5, 2], "label": "hop"}]}}}
    ),
    ("list", "list.csv", None): 'path,label,start,end\nhop/1.mp4,hop,0,1\n"run/2.mp4",run,,\n',
    ("list", "list.txt", None): "hop/1.mp4 0\nrun/2.mp4 1\n",
    ("hmdb51", "hmdb/hop_test_split1.txt", "train1"): "1.mp4 1\n2.mp4 2\n",
    ("auto", "auto.csv", None): "hop/1.mp4,hop\nrun/2.mp4,run\n",
}


def list_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """Lists of every layout, lists of classes and of ids."""
    source = folder / "source"
    for name in ("hop/1.mp4", "run/2.mp4", "run/abcdefghijk_000001_000011.mp4"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_bytes(b"video")
    (folder / "hmdb").mkdir()
    for _ in range(cases):
        (layout, name, split), text = rng.choice(list(LISTS.items()))
        data = text.encode()
        (folder / name).write_bytes(mutated_json(data, rng) if name.endswith("json") else mutated(data, rng))
        classes = ids = None
        if rng.random() < 0.3:
            classes = folder / rng.choice(["classes.txt", "dataset.json"])
            plain = b"hop\nrun\n" if classes.suffix == ".txt" else json.dumps({"classes": ["hop", "run"]}).encode()
            classes.write_bytes(mutated_json(plain, rng) if classes.suffix == ".json" else mutated(plain, rng))
        if rng.random() < 0.1:
            ids = folder / "ids.txt"
            ids.write_bytes(mutated(b"1\n2\n", rng))

        def read(layout=layout, name=name, split=split, classes=classes, ids=ids) -> str:
            labels = folder / ("hmdb" if layout == "hmdb51" else name)
            options = {"layout": layout, "labels": labels, "split": split, "classes": classes, "only": ids}
            found = find_videos(SourceConfig(source=source, **options))
            inside = all((source / video.path).resolve().is_relative_to(source) for video in found.videos)
            return "listed" if inside and len(found.classes) < 200_000 else "wrong data"

        yield read


def source_tar_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """WebDataset tars, biased to their headers."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w") as tar:
        for n in range(4):
            for name, data in ((f"{n}.mp4", bytes(700)), (f"{n}.json", b'{"label": 1}'), (f"{n}.cls", b"1")):
                member = tarfile.TarInfo("long/" * (40 if n == 3 else 0) + name)
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    whole = made.getvalue()
    headers = [at for at in range(0, len(whole), 512) if whole[at + 257 : at + 262] == b"ustar"]
    for _ in range(cases):
        at = rng.choice(headers)
        part = mutated(whole[at : at + 512], rng)
        if rng.random() < 0.7 and len(part) == 512:  # the header's own checksum follows
            total = sum(part[:148]) + 8 * 32 + sum(part[156:])
            part = part[:148] + b"%06o\0 " % total + part[156:]
        (folder / "0.tar").write_bytes(whole[:at] + part + whole[at + 512 :])

        def read() -> str:
            found = find_videos(SourceConfig(source=folder, layout="webdataset"))
            size = (folder / "0.tar").stat().st_size
            inside = all(0 <= video.offset <= video.offset + (video.length or 0) <= size for video in found.videos)
            return "listed" if inside and len(found.classes) < 200_000 else "wrong data"

        yield read


def class_list_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """Lists of class names."""
    for _ in range(cases):
        path = folder / rng.choice(["classes.txt", "dataset.json"])
        plain = b"hop\nrun\nj\xc3\xb8g\n" if path.suffix == ".txt" else json.dumps({"classes": ["hop", "run"]}).encode()
        path.write_bytes(mutated_json(plain, rng) if path.suffix == ".json" else mutated(plain, rng))
        yield lambda path=path: f"{len(read_classes(path)) > 0}"
