"""The benchmark of compiling: its targets can be missed."""

import json

from unstill.bench.suites import compile as suite


def test_a_start_that_fails_misses_its_target(tmp_path, monkeypatch):
    seconds = {"albar": iter([(10.0, ""), (3.0, "")]), "albar, one backward": iter([(None, "RuntimeError: no")])}
    monkeypatch.setattr(suite, "compile_seconds", lambda variant, _: next(seconds[variant.name]))
    rows = json.loads(suite.run(suite.CompileBench(out=tmp_path)).read_text())["rows"]
    assert [row.get("met") for row in rows[-2:]] == [False, True] and rows[2]["error"] == "RuntimeError: no"
