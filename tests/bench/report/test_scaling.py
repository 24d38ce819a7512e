"""SCALING.md says what the committed files say, and its arithmetic is right."""

import re
from pathlib import Path

import pytest
import torch

from unstill.bench.harness.result_files import read_results
from unstill.bench.report.scaling import PAGE, RECIPES, layered_frames, page, per_clip
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.methods import Baseline
from unstill.trainer.models.registry import build_model
from unstill.trainer.monitoring.flops import step_flops

COMMITTED = Path(__file__).parents[3] / "bench" / "results"


def test_the_page_is_that_of_the_committed_files():
    assert PAGE.read_text() == page(read_results(COMMITTED)), (
        "run `python -m unstill.bench.report.scaling` and commit the page"
    )


def test_the_arithmetic_on_the_page_can_be_repeated():
    number = r"\d[\d,]*(?:\.\d+)?"
    text = " ".join(PAGE.read_text().split())
    sums = re.findall(rf"({number}(?: [×/+-] {number})+) = ({number})", text)
    assert len(sums) > 25
    for left, right in sums:
        value = eval(left.replace(",", "").replace("×", "*"))
        assert value == pytest.approx(float(right.replace(",", "")), rel=5.1e-3), (left, right)


def test_counted_figures_by_brute_force():
    clip, gop, frames = ClipConfig(frames=16, stride=2), 12, 300
    found = []
    for start in range(frames - 30):
        needed = [start + 2 * n for n in range(16)]
        gops = {n // gop for n in needed}
        found.append((len(gops), needed[-1] + 1 - min(gops) * gop))
    gops, decoded = (sum(column) / len(found) for column in zip(*found, strict=True))
    assert per_clip(clip) == (pytest.approx(gops), pytest.approx(decoded))
    even = [set(range(start // gop * gop, start + 31, 2)) for start in range(0, frames - 30, 2)]
    assert layered_frames(clip) == pytest.approx(sum(map(len, even)) / len(even))


def test_the_operations_of_a_step_are_those_that_are_counted():
    with torch.device("meta"):
        net = build_model("r3d_18", 400)
    clip, tflop = RECIPES["scratch"]
    assert step_flops(net, Baseline(), clip.frames, clip.size) / 1e12 == pytest.approx(tflop, rel=5e-3)


def test_a_missing_file_is_named():
    results = [result for result in read_results(COMMITTED) if result.name != "growth"]
    with pytest.raises(InputError, match=r"growth-cpu\.json.*unstill bench growth"):
        page(results)
