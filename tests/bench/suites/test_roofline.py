"""The roofline: every kind of bottleneck is named with its remedy, and what a clip asks for is counted right."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch

from unstill.bench.harness import ceilings, stages, workload
from unstill.bench.harness.bottleneck import REMEDIES, Stage, verdict
from unstill.bench.suites import roofline
from unstill.kernels import clip_prep
from unstill.trainer.inputs.prepare import clip_options
from unstill.trainer.methods import Baseline

# clips/s that each stage delivers, all well above the step's 612; the machine would allow four times as much
FAST = {"read": 9000.0, "decode": 1000.0, "copy": 50_000.0, "clip_prep": 8000.0, "together": 950.0, "step": 612.0}


def pipeline(of_limit: float = 0.25, **changes: float | None) -> list[Stage]:
    """FAST with other rates; ``of_limit``: how close all are to the machine's limit."""
    found = []
    for name, rate in (FAST | changes).items():
        limit = {} if rate is None else {"work": 10.0, "unit": "bytes", "ceiling": 10 * rate / of_limit}
        found.append(Stage(name=name, delivered=rate, resource="the link", how="no decoder here", **limit))
    return found


@pytest.mark.parametrize("of_limit", [0.25, 0.9])
@pytest.mark.parametrize("name", ["read", "disk", "decode", "copy", "clip_prep"])
def test_the_slowest_stage_is_the_bottleneck(name, of_limit):
    said = verdict(pipeline(of_limit, **{name: 540.0}, together=530.0))
    assert said.startswith(f"{name}-bound: 612 clips/s needed, 530 delivered")
    assert f"{100 * of_limit:.0f} % of the {540 / of_limit:,.0f} that the link would allow" in said
    assert said.endswith(REMEDIES[name][of_limit > 0.5])  # near the limit no setting helps, so another remedy


def test_the_promised_sentence():
    said = verdict([Stage(name="decode", delivered=540.0), Stage(name="step", delivered=612.0)])
    assert said.startswith("decode-bound: 612 clips/s needed, 540 delivered; raise --loader.pipelines or ")
    assert "smaller GOP" in said


def test_stages_that_only_together_are_too_slow_are_blamed_together():
    assert verdict(pipeline(together=400.0)).startswith("together-bound: 612 clips/s needed, 400 delivered")
    # 590 is what decoding at 650 explains
    assert verdict(pipeline(decode=650.0, together=590.0)).startswith("decode-bound: 612 clips/s needed, 590 delivered")


def test_the_cores_of_a_cpu_are_named_when_the_step_and_the_loader_share_them():
    share = "2 core(s) over the CPU time of a clip: the loader 3 ms, the step 1.2 ms"
    cores = Stage(name="cores", delivered=476.0, how=share)
    said = verdict([*pipeline(), cores])
    assert said.startswith(f"cores-bound: 612 clips/s needed, 476 delivered ({share}); ")
    assert verdict([*pipeline(), replace(cores, delivered=590.0)]).startswith("step-bound")  # hardly any sharing
    assert verdict([*pipeline(), cores], needed=300).startswith("nothing holds it up")


def test_a_step_that_is_slower_than_all_before_it_is_the_bottleneck():
    said = verdict(pipeline(0.3))
    assert said.startswith("step-bound: the step takes 612 clips/s, 30 % of the 2,040 that")
    assert "every stage before it delivers at least 950 (together)" in said and said.endswith(REMEDIES["step"][0])
    assert verdict(pipeline(0.8)).endswith(REMEDIES["step"][1])
    assert "(together, little to spare)" in verdict(pipeline(together=620.0, decode=640.0))
    wanted = verdict(pipeline(), needed=800)
    assert wanted.startswith("step-bound: 800 clips/s needed, the step takes 612 clips/s")


def test_a_wish_may_be_smaller_than_what_there_is_or_than_one_stage():
    assert verdict(pipeline(), needed=300) == (
        "nothing holds it up: 300 clips/s needed, every stage delivers at least 612 (step)"
    )
    assert verdict(pipeline(decode=500.0, together=480.0), needed=2000).startswith(
        "decode-bound: 2,000 clips/s needed, 480 delivered"
    )


def test_what_was_not_measured_is_said():
    said = verdict(pipeline(decode=None, together=None))
    assert said.startswith("step-bound") and "not measured: decode, no decoder here; together, no decoder here" in said
    with pytest.raises(ValueError, match="say what is needed"):
        verdict(pipeline(step=None))


def test_prepared_bytes_are_those_of_the_tensors(tmp_path):
    albar = workload.Workload(device="cpu", data=tmp_path, frames=4, size=16).train_config(tmp_path)
    albar = replace(albar, inputs=replace(albar.inputs, transform=None))
    for config in (albar, replace(albar, method=Baseline())):
        frames = torch.zeros(1, 4, 16, 16, 3, dtype=torch.uint8)
        zero = torch.zeros(1, dtype=torch.int64)
        clips = clip_prep(frames, flip=zero > 0, t_idx=zero, **clip_options(config))
        written = sum(clip.nbytes for clip in clips if clip is not None)
        assert stages.prep_bytes(config) == frames.nbytes + written


def test_files_are_read_whole_and_a_missing_o_direct_is_a_reason(tmp_path, monkeypatch):
    path = tmp_path / "shard.tar"
    path.write_bytes(os.urandom((1 << 20) + 5000))
    blocks = ceilings._blocks([path], 1 << 30)
    assert sorted((offset, length) for _, offset, length in blocks) == [(0, 1 << 20), (1 << 20, 4096)]
    assert ceilings.cached_reading([path], 2, 0.01).rate > 0
    monkeypatch.delattr(os, "O_DIRECT")
    found = ceilings.disk_reading([path], 1, 0.01)
    assert found.rate is None and "O_DIRECT" in found.how


@pytest.mark.slow
def test_a_step_that_runs_out_of_memory_leaves_the_other_stages(tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(workload, "MOTIONS", 16)
    monkeypatch.setattr(stages.RunStages, "step", full)
    small = workload.Workload(device="cpu", videos=tmp_path / "videos", batch_size=4, frames=4, size=16)
    path = roofline.run(roofline.RooflineBench(out=tmp_path, workload=small, seconds=0.02))
    result = json.loads(path.read_text())
    found = {row["stage"]: row for row in result["rows"] if "stage" in row}
    assert found["step"]["skipped"] == "out of memory" and found["decode"]["value"] > 0
    assert "not measured: step, out of memory" in result["summary"]


@pytest.mark.slow
def test_the_benchmark_measures_every_stage(tmp_path, monkeypatch):
    monkeypatch.setattr(workload, "MOTIONS", 16)
    small = workload.Workload(device="cpu", videos=tmp_path / "videos", batch_size=4, frames=4, size=16)
    path = roofline.run(roofline.RooflineBench(out=tmp_path, workload=small, seconds=0.02))
    result = json.loads(path.read_text())
    rows = result["rows"]
    found = {row["stage"]: row for row in rows if "stage" in row}
    assert list(found) == ["read", "disk", "decode", "copy", "clip_prep", "together", "step", "cores"]
    assert "no CUDA device" in found["copy"]["skipped"] and "skipped" not in found["decode"]
    # motions have one GOP of 8 frames; a clip of 4 frames, stride 1, is decoded up to its last frame
    assert 4 <= found["decode"]["per_clip"] <= 8
    assert 0 < found["cores"]["value"] and "the loader" in found["cores"]["how"]
    for name in ("read", "decode", "clip_prep", "step"):
        row = found[name]
        assert row["value"] > 0 and "/s / " in row["arithmetic"]
        assert np.isclose(row["of_limit_percent"], 100 * row["value"] / row["limit_clips_per_s"])
    assert {row["ceiling"] for row in rows if "ceiling" in row and "value" in row} >= {
        *("reading, page cache", "device memory", "fp32 products", "decoder")
    }
    assert "clips/s" in result["summary"] and "-bound" in result["summary"]
