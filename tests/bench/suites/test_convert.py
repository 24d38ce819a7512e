"""The conversion benchmark runs, and writes every row that the plan sets a bar for."""

import json

import pytest

from unstill.bench.suites.convert import ConvertBench, run


@pytest.mark.slow
def test_bench_convert_writes_its_rows(tmp_path, monkeypatch):
    import unstill.bench.suites.convert as bench

    monkeypatch.setattr(bench, "SOURCE_SIZE", (64, 96))
    monkeypatch.setattr(bench, "MEMORY_SIZES", ((128, 128, 4),))
    path = run(ConvertBench(out=tmp_path, rounds=1, seconds=0.2, videos=2, shards=3))
    rows = json.loads(path.read_text())["rows"]
    named = {row["what"].split(",")[0] for row in rows}
    assert {"transcode and check", "two workers beside one", "resume of a finished job of 3 shards"} <= named
    assert all(row["p50"] > 0 for row in rows)
    assert any(row.get("unit") == "MB" and 20 < row["p50"] < 400 for row in rows)
