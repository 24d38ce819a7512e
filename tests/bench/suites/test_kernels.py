import json

import pytest
import torch

from unstill.bench.harness.record import ResultFile
from unstill.bench.harness.result_files import read_results
from unstill.bench.report.figures import figures
from unstill.bench.suites import kernels
from unstill.kernels import clip_prep

SMALL = dict(batch=4, frames=3, height=20, width=24, size=16, classes=(7, 70), aot=False)


def test_providers_compute_the_same_clips():
    config = kernels.KernelsBench(**SMALL)
    inputs = kernels.clip_inputs(config, torch.device("cpu"))
    index = (inputs.frames, inputs.top, inputs.left, inputs.flip, inputs.t_idx, inputs.size)
    for static in ("frame", "full"):
        ours = clip_prep(inputs.frames, **inputs.options(static, "ncdhw"))
        last = clip_prep(inputs.frames, **inputs.options(static, "channels_last_3d"))
        others = {
            "fp32": (kernels.eager_fp32(inputs, static), 1),
            "bf16": (kernels.eager_bf16(inputs, static), 8),  # rounded after every operation
            "gathered": (kernels.gathered(*index, static, "ncdhw"), 1),
            "gathered, channels last": (kernels.gathered(*index, static, "channels_last_3d"), 1),
        }
        for name, (theirs, roundings) in others.items():
            for got, want in zip(theirs, ours, strict=True):
                torch.testing.assert_close(got, want, rtol=roundings * 2**-8, atol=roundings * 2**-9, msg=name)
        motion = others["gathered, channels last"][0][0]
        assert motion.stride() == last[0].stride()


def test_providers_compute_the_same_losses():
    inputs = kernels.loss_inputs(6, 9, torch.device("cpu"))
    results = []
    for function in (kernels.plain_losses, kernels.our_losses):
        loss = function(*inputs)
        results.append((loss.detach(), torch.autograd.grad(loss, inputs[0])[0]))
    torch.testing.assert_close(*results, rtol=1e-2, atol=1e-4)


def test_without_a_gpu_predictions_are_labelled(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = kernels.run(kernels.KernelsBench(**SMALL, out=tmp_path))
    result = json.loads(path.read_text())
    assert {row["kind"] for row in result["rows"]} == {"predicted"} and kernels.NOT_TIMES in result["notes"]
    assert {row["unit"] for row in result["rows"]} == {"MB"}
    assert "no time is reported" in capsys.readouterr().out
    # 32 clips of 32 x 224 x 224: one byte read and two written of 154 million elements, and one frame
    full = kernels.KernelsBench()
    assert kernels.clip_bytes(full, "triton", "frame") == pytest.approx(472e6, rel=1e-3)


def test_every_measurement_runs(monkeypatch, tmp_path):
    """The GPU's path with a clock that only calls: on the CPU forms, uncompiled."""
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    calls = []

    def clock(function, config, graph=False):
        function()
        calls.append(function)
        return dict(p20=1.0, p50=2.0, p80=3.0)

    monkeypatch.setattr(kernels, "milliseconds", clock)
    results = ResultFile("kernels", out=tmp_path)
    kernels.measure(kernels.KernelsBench(**SMALL), torch.device("cpu"), results)
    written = read_results(tmp_path)[0]  # before it is finished: every row is written when it is measured
    rows = [row for row in written.rows if "kernel" in row.facts]
    assert not written.complete and len(written.rows) == len(results.rows)
    assert len(rows) == len(calls) and all((row.p20, row.value, row.p80, row.unit) == (1, 2, 3, "ms") for row in rows)
    assert {row.facts["kernel"] for row in rows} == {"copy", "clip_prep", "static_losses", "step_boundary"}
    providers = {row.facts["provider"] for row in rows if row.facts["kernel"] == "clip_prep"}
    assert providers == {"triton", "compiled", "eager bf16", "eager fp32"}
    drawn = {
        figure.title: [bar.role for bar in figure.bars] for figure in figures(written, kernels.SECTIONS["kernels"])
    }
    assert drawn["clip_prep: frames to both clips"][:5] == ["limit", "ours", "peer", "peer", "peer"]
    assert drawn["static_losses: losses and gradient"][:4] == ["ours", "ours", "peer", "peer"]
    called = [row for row in rows if row.facts["kernel"] != "copy" and not row.facts.get("cudagraph")]
    assert all(row.facts["host_ms"] > 0 for row in called)
