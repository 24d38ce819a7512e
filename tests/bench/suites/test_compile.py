"""The benchmark of compiling: starts are processes with caches of their own, and its targets can be missed."""

import json

import pytest

from unstill.bench.suites import compile as suite


@pytest.mark.slow
def test_a_second_start_finds_what_the_first_compiled(tmp_path):
    config = suite.CompileBench(out=tmp_path, model="motion_cnn", clip=(4, 16), reference=False)
    result = json.loads(suite.run(config).read_text())
    cold, second, ratio = result["rows"]
    assert cold["value"] > second["value"] > 0 and ratio["value"] == pytest.approx(second["value"] / cold["value"])


def test_a_start_that_fails_misses_its_target(tmp_path, monkeypatch):
    seconds = {"albar": iter([(10.0, ""), (3.0, "")]), "albar, one backward": iter([(None, "RuntimeError: no")])}
    monkeypatch.setattr(suite, "compile_seconds", lambda variant, _: next(seconds[variant.name]))
    rows = json.loads(suite.run(suite.CompileBench(out=tmp_path)).read_text())["rows"]
    assert [row.get("met") for row in rows[-2:]] == [False, True] and rows[2]["error"] == "RuntimeError: no"
