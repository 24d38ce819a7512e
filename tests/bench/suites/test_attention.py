import dataclasses

import pytest
import torch

from unstill.bench.harness.result_files import read_results
from unstill.bench.suites import attention

CASES = (attention.Case("windows", 8, 2, 5, 4, True), attention.Case("tokens", 1, 2, 7, 4, False))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_providers_compute_the_same_passes(case):
    inputs = attention.Inputs.draw(case, "cpu")
    for kind in attention.PASSES:
        results = []
        for function in (attention.ours, attention.math_attention, attention.sdpa_math):
            found = attention.one_pass(function, inputs, kind)()
            results.append([found] if isinstance(found, torch.Tensor) else found)
        for other in results[1:]:
            torch.testing.assert_close(results[0], other, rtol=1e-4, atol=1e-5)


def test_rows_of_a_machine_without_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(attention, "ON_A_CPU", CASES)
    attention.run(attention.AttentionBench(out=tmp_path, rounds=1))
    (result,) = read_results(tmp_path)
    rows = result.rows
    kinds = [row.facts["kind"] for row in rows]
    assert kinds.count("measured") == 2 * 3 * 3 and kinds.count("predicted") == 6
    kept = {(row.group, row.facts["provider"]): row.value for row in rows if row.facts["kind"] == "counted"}
    for case in CASES:
        assert kept[case.name, "unstill"] < kept[case.name, "math"]


@pytest.mark.gpu
def test_rows_of_a_gpu_tell_the_hosts_time_from_the_devices():
    case = dataclasses.replace(CASES[0], size=16)
    inputs = attention.Inputs.draw(case, "cuda")
    for kind in attention.PASSES:
        rows = attention.timed_rows(attention.AttentionBench(milliseconds=2), case, inputs, kind)
        ours = next(row for row in rows if row.facts["provider"] == "unstill")
        # microseconds of kernels; with the host's time, as two events around a call have it, it was 0.13 to 0.7 ms
        assert ours.value is not None and ours.value < 0.1 and ours.facts["host_ms"] > 0
