"""The camera's benchmark: its truth is the motion that the renderer applied, and an estimate that is off is off."""

import json

import pytest
import torch

from unstill.bench.suites import camera as suite
from unstill.trainer.models.camera_motion import hold_still


@pytest.mark.parametrize("camera", ["pan", "zoom", "handheld"])
def test_the_true_motion_holds_the_scene_still(camera):
    clips, truth = suite.procedural(suite.CameraBench(clips=4), camera, 64)
    inner = (..., slice(8, -8), slice(8, -8))  # beyond the border the scene goes on, and the clip does not show it
    moved = clips[inner].std(2).median()
    assert hold_still(clips, truth)[inner].std(2).median() < 0.7 * moved
    assert suite.pixel_errors(truth, truth, 64).max() == 0
    wrong = truth.clone()
    wrong[:, :, 0, 2] += 2 * 3 / 64  # three pixels to the right
    assert suite.pixel_errors(wrong, truth, 64) == pytest.approx(torch.full((4,), 3.0), rel=0.1)


def test_a_benchmark_of_two_cameras(tmp_path):
    config = suite.CameraBench(out=tmp_path, cameras=("still", "shake"), sizes=(32,), clips=4)
    rows = json.loads(suite.run(config).read_text())["rows"]
    assert len(rows) == 6 and {row["camera"] for row in rows} == {"still", "shake"}
    shake = next(row for row in rows if row["title"] == "shake, 32 pixels, translation: error")
    assert shake["value"] < 0.5 < shake["as_filmed"]
