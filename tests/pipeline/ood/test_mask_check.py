"""Quality of masks by hand, and the list to review."""

import csv
import json
import math

import av
import numpy as np
import pytest
from PIL import Image

from unstill.pipeline.ood.mask_check import MaskCheckConfig, check_masks, mask_quality, mean_leak

T, H, W = 4, 16, 32


def square(left, size=8):
    mask = np.zeros((H, W), bool)
    mask[4 : 4 + size, left : left + size] = True
    return mask


def test_numbers_by_hand():
    masks = np.stack([np.zeros((H, W), bool), square(2), square(6), square(10)])
    boxes = np.stack([square(2, 10), square(2, 10), square(2, 10), np.zeros((H, W), bool)])
    quality = mask_quality(masks, boxes)
    assert quality.frames == 4 and quality.empty == 0
    assert quality.area == pytest.approx(64 / (H * W))
    assert quality.least_iou == pytest.approx(32 / 96)  # half of a square overlaps the next
    # frames 1 and 2 have both; in frame 2 columns 12 and 13 of the mask stick out of the box
    assert quality.area_to_box == pytest.approx(128 / 200) and quality.outside_box == pytest.approx(16 / 128)
    assert quality.leak == pytest.approx((100 - 64 + 100 - 48) / 200)
    assert quality.flags == []
    gap = mask_quality(np.stack([square(0), np.zeros((H, W), bool), square(20), square(0)]))
    assert gap.empty == 0.25 and gap.least_iou == 0 and math.isnan(gap.leak)
    assert gap.flags == ["empty frames", "jumps"]
    assert mask_quality(np.zeros((3, H, W), bool)).flags == ["no masks", "empty frames"]
    assert "unlike its box" in mask_quality(masks, np.ones((T, H, W), bool)).flags


def test_list_to_review(tmp_path):
    table = {}
    for name, lefts in (("a", (2, 4, 6, 8)), ("b", (2, 20, 2, 20)), ("c", None)):
        path = tmp_path / "videos" / "run" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        with av.open(str(path), "w") as container:
            stream = container.add_stream("libx264", rate=5)
            stream.height, stream.width, stream.pix_fmt = H, W, "yuv420p"
            for _ in range(T):
                frame = av.VideoFrame.from_ndarray(np.zeros((H, W, 3), np.uint8), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        if lefts:
            (tmp_path / "masks" / "run").mkdir(parents=True, exist_ok=True)
            strip = np.hstack([square(left) for left in lefts])
            Image.fromarray(strip.astype(np.uint8) * 255).save(tmp_path / "masks" / "run" / f"{name}.png")
            table[f"run/{name}"] = {t: [[left, 2, left + 8, 14]] for t, left in enumerate(lefts)}
    (tmp_path / "boxes.json").write_text(json.dumps(table))
    config = MaskCheckConfig(
        source=tmp_path / "videos",
        masks=tmp_path / "masks",
        boxes=tmp_path / "boxes.json",
        out=tmp_path / "review.csv",
    )
    found = check_masks(config)
    assert mean_leak(found) == pytest.approx(1 - 64 / 96)
    with open(tmp_path / "review.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["video"], row["flags"]) for row in rows] == [
        ("run/b.mp4", "jumps"),
        ("run/c.mp4", "no masks"),
        ("run/a.mp4", ""),
    ]
    Image.fromarray(square(2).astype(np.uint8) * 255).save(tmp_path / "masks" / "run" / "a.png")
    found = check_masks(config)
    assert "1 masks of run/a, which has 4 frames" in found["run/a.mp4"] and found["run/b.mp4"].flags == ["jumps"]
