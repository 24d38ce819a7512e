"""Mixed and broken videos: the benchmark's counts hold on a few of them, and it notices a lost file."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from unstill.bench.harness.mixed_videos import FAULTS, KINDS
from unstill.bench.suites import mixed


@pytest.mark.slow
def test_every_kind_and_every_fault_is_accounted_for(tmp_path, monkeypatch):
    kept = {}
    counts = mixed.rows
    monkeypatch.setattr(mixed, "rows", lambda *given: counts(*kept.setdefault("given", given)))
    config = mixed.MixedBench(out=tmp_path, videos=10 * len(FAULTS), codec="vp9", workers=(1, 2))
    rows = {row["title"]: row for row in json.loads(mixed.run(config).read_text())["rows"]}
    assert all(row["met"] for row in rows.values() if "met" in row)
    assert 4 <= rows["quarantined"]["value"] <= len(FAULTS)  # some codecs decode changed bytes
    assert rows["named as left out"]["value"] > 0
    made, reports, digests, _ = kept["given"]
    assert {f"{suffix} {encoder}" for suffix, _, encoder, _ in KINDS} <= made.keys()
    fewer = [replace(report, converted=report.converted - 1) for report in reports]
    other = [digests[0], digests[1] | {"index.safetensors": "other"}]
    differing, lost = counts(Counter(made), fewer, other, config)[:2]
    assert (differing.met, lost.met) == (False, False)
