"""The report draws what the result files say, all of it, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from unstill.bench.report import ReportOptions, run, verdict
from unstill.bench.report_figures import by_rule
from unstill.bench.report_known import figures
from unstill.bench.report_promises import promises
from unstill.bench.result_files import Result, read_results
from unstill.pipeline.errors import InputError

COMMITTED = Path(__file__).parents[2] / "bench" / "results"


def content(**changes) -> dict:
    rows = [{"provider": "unstill", "p20": 1.0, "p50": 2.0, "p80": 3.0, "unit": "clips/s"}]
    machine = {"cpu": "Abacus", "cores": 2}
    fixed = {"command": "unstill bench toy", "commit": "0123456789ab", "date": "2026-01-02T03:04:05+00:00"}
    return {"name": "toy", **fixed, "device": "cpu", "machine": machine, "rows": rows, "notes": []} | changes


def result(rows: list[dict], **changes) -> Result:
    return Result(file="toy-cpu.json", **content(rows=rows, **changes))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The page of the committed files."""
    out = tmp_path_factory.mktemp("report")
    path = run(ReportOptions(results=COMMITTED, out=out))
    assert (out / "report.png").read_bytes()[:4] == b"\x89PNG" and {p.name for p in out.iterdir()} == {
        "report.html",
        "report.png",
    }
    return path.read_text()


def test_every_committed_file_is_drawn_with_its_command_commit_device_and_day(page):
    for found in read_results(COMMITTED):
        for caption in (found.file, found.command, found.commit, found.where, found.date[:10]):
            assert caption in page
        for note in found.notes:
            assert note.replace("&", "&amp;").replace("'", "&#39;").replace(">", "&gt;").replace("<", "&lt;") in page


def test_the_page_needs_nothing_else(page):
    assert not re.search(r"<script|<link|@import|url\(|src=|https?://", page)
    widths = [float(w) for w in re.findall(r"(?:left|width):([\d.]+)%", page)]
    assert widths and max(widths) <= 100.01


def test_known_benchmarks_are_drawn_in_their_own_words():
    # a file whose rows are no longer understood falls back to the general rule without a word; this is the word
    for found in read_results(COMMITTED):
        if found.name in ("convert", "loader", "growth", "kernels", "kernels_sm90", "demo"):
            assert [f.title for f in figures(found)] != [f.title for f in by_rule(found)], found.file
            assert all(figure.reading for figure in figures(found))


def test_an_unknown_benchmark_is_drawn_by_the_rule_and_its_other_rows_are_in_the_table(tmp_path):
    rows = [
        {"stage": "decode <b>", "model": "m", "p20": 8.0, "p50": 9.0, "p80": 10.0, "unit": "clips/s"},
        {"stage": "limit: decode", "model": "m", "p50": 40.0, "unit": "clips/s"},
        {"stage": "decode <b>", "model": "m", "p50": float("nan"), "unit": "MB"},
        {"stage": "words only", "found": "a sentence"},
    ]
    (tmp_path / "toy-cpu.json").write_text(json.dumps(content(rows=rows)))
    (drawn,) = figures(read_results(tmp_path)[0])
    assert [(bar.label, bar.value, bar.role) for bar in drawn.bars] == [
        ("decode <b>", 9.0, "ours"),
        ("limit: decode", 40.0, "limit"),
    ]
    assert drawn.better == "higher" and (drawn.bars[0].low, drawn.bars[0].high) == (8.0, 10.0)
    page = run(ReportOptions(out=tmp_path)).read_text()  # without --results, those of --out
    assert "a sentence" in page and "decode &lt;b&gt;" in page and "<b>" not in page


def test_devices_are_drawn_side_by_side(tmp_path):
    (tmp_path / "toy-cpu.json").write_text(json.dumps(content()))
    gpu = content(device="nvidia-h200", machine={"cpu": "Abacus", "gpu": "NVIDIA H200"})
    (tmp_path / "toy-nvidia-h200.json").write_text(json.dumps(gpu))
    page = run(ReportOptions(out=tmp_path)).read_text()
    titles = re.findall(r"<h3>(.*?)</h3>", page)
    assert titles == ["toy: clips/s: Abacus, 2 cores", "toy: clips/s: NVIDIA H200"]
    assert "No GPU has been measured" not in page


@pytest.mark.parametrize(
    "broken",
    [
        "{",
        "[]",
        json.dumps({"baseline": {"iid": 3}}),
        json.dumps(content(rows={})),
        json.dumps(content(rows=[3])),
        json.dumps(content(commit="")),
        json.dumps(content(notes="a text")),
        json.dumps(content(machine=None)),
    ],
)
def test_a_broken_file_is_named_in_one_line(tmp_path, broken):
    (tmp_path / "good-cpu.json").write_text(json.dumps(content()))
    (tmp_path / "bad-cpu.json").write_text(broken)
    with pytest.raises(InputError) as problem:
        run(ReportOptions(out=tmp_path))
    assert "bad-cpu.json" in str(problem.value) and "\n" not in str(problem.value)
    assert not (tmp_path / "report.html").exists()


def test_an_empty_folder_says_what_to_run(tmp_path):
    with pytest.raises(InputError, match="unstill bench"):
        run(ReportOptions(out=tmp_path))


def test_bars_are_held_the_right_way_round():
    found = promises(
        result(
            [
                {"what": "rate", "p50": 9.0, "unit": "clips/s", "bar": 10.0},
                {"what": "time", "p50": 9.0, "unit": "s", "bar": 10.0},
                {"what": "beside another", "p50": 1.0, "unit": "s", "ratio": 0.8, "bar": 0.9},
                {"path": "x, slowest / fastest start", "times": 1.2, "bar": 1.3},
                {"bar": "gradients", "value": 2.0, "at_most": 1.0, "held": False},
                {"what": "peak, a", "p50": 3.0, "unit": "MB", "bar": 4},
                {"what": "peak, b", "p50": 5.0, "unit": "MB", "bar": 4},
                {"what": "no bar", "p50": 5.0, "unit": "MB"},
            ]
        )
    )
    assert [(p.what, p.value, p.sense, p.held) for p in found] == [
        ("rate", 9.0, "at least", False),
        ("time", 9.0, "at most", True),
        ("beside another", 0.8, "at least", False),
        ("x, slowest / fastest start", 1.2, "at most", True),
        ("gradients", 2.0, "at most", False),
        ("peak, b (the worst of 2)", 5.0, "at most", False),
    ]
    words = verdict([found[0].result], found)
    assert words.startswith("2 of 6") and "rate, 9 instead of at least 10" in words and "No GPU" in words
