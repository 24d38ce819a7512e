"""Boxes around an actor on a torus: they cover its mask, are as small as can be, and stay inside the picture."""

import csv

import numpy as np
import pytest

from unstill.trainer.demo.motions.boxes import boxes_on_torus, spans_on_circle, write_boxes
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig


@pytest.mark.parametrize(
    "places, spans",
    [("..##.", [(2, 4)]), ("#...#", [(4, 5), (0, 1)]), ("#.##.", [(0, 4)]), ("#####", [(0, 5)]), (".....", [])],
)
def test_spans(places, spans):
    assert spans_on_circle(np.array([p == "#" for p in places])) == spans


def test_a_rolled_mask_has_the_rolled_box():
    mask = np.zeros((12, 12), bool)
    mask[3:7, 4:6] = mask[4, 3:8] = True
    box = np.zeros_like(mask)
    box[3:7, 3:8] = True
    for down in range(12):
        for right in range(12):
            painted = np.zeros_like(mask)
            for x0, y0, x1, y1 in boxes_on_torus(np.roll(mask, (down, right), (0, 1))):
                assert not painted[y0:y1, x0:x1].any()
                painted[y0:y1, x0:x1] = True
            assert np.array_equal(painted, np.roll(box, (down, right), (0, 1)))


@pytest.mark.slow
def test_boxes_of_a_split(tmp_path):
    write_motions(MotionsConfig(out=tmp_path / "videos", train=8, test=8, splits=("train",), size=32, workers=1))
    rows = list(csv.DictReader(write_boxes(tmp_path / "videos", "train", tmp_path / "people.csv").open()))
    assert {row["video"] for row in rows} >= {"left_000000", "zoom_out_000007"}
    assert len({(row["video"], row["frame"]) for row in rows}) == 8 * 8
    assert all(
        0 <= float(r["left"]) < float(r["right"]) <= 1 and 0 <= float(r["top"]) < float(r["bottom"]) <= 1 for r in rows
    )
