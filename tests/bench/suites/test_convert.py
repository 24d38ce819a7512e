"""The conversion benchmark runs, and writes every row that has a target."""

import json

import pytest

from unstill.bench.suites.convert import ConvertBench, run


@pytest.mark.slow
def test_bench_convert_writes_its_rows(tmp_path, monkeypatch):
    import unstill.bench.suites.convert as bench

    monkeypatch.setattr(bench, "SOURCE_SIZE", (64, 96))
    monkeypatch.setattr(bench, "MEMORY_SIZES", ((128, 128, 4),))
    path = run(ConvertBench(out=tmp_path, rounds=1, seconds=0.2, videos=2, shards=3, files=8))
    rows = json.loads(path.read_text())["rows"]
    targets = {row.get("target", row["title"]) for row in rows if "met" in row}
    others = {"resume of a finished job of 3 shards", "peak memory of a worker"}
    others |= {"audit of 8 small files", "plan of 8 small files"}
    assert targets - {"transcode and check / ffmpeg"} == {"whole conversion, two workers / one", *others}
    assert all(row["value"] > 0 for row in rows)
    assert all(20 < row["value"] < 400 for row in rows if row["title"].startswith("peak memory"))
