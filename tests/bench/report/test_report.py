"""The report draws what the result files say, all of it, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from unstill.bench.harness.result_files import Result, read_results
from unstill.bench.report.figures import by_rule
from unstill.bench.report.known import MEASURES, figures
from unstill.bench.report.page import ReportOptions, run, verdict
from unstill.bench.report.promises import promises
from unstill.pipeline.errors import InputError

COMMITTED = Path(__file__).parents[3] / "bench" / "results"


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


SPREAD = {"p20": 1.0, "p50": 2.0, "p80": 3.0, "unit": "ms"}
CLIPS = {"kind": "measured", "kernel": "clip_prep", "shape": "2x2", "static": "frame", "layout": "ncdhw", **SPREAD}
RUN = {"recipe": "r", "model": "m", "method": "albar", "clip": "16x2", "batch": 8}
ON_A_GPU = {  # rows as the benchmarks write them where there is a GPU, and what is drawn of them
    "kernels": (
        [
            {"kind": "measured", "kernel": "copy", "provider": "torch", "shape": "1 B", **SPREAD, "gb_s": 1.0},
            {**CLIPS, "provider": "triton", "of_copy": 0.8, "times_triton": 1.0},
            {**CLIPS, "provider": "eager bf16", "of_copy": 0.2, "times_triton": 4.0},
            {**CLIPS, "kernel": "step_boundary", "provider": "triton"},
            {**CLIPS, "kernel": "static_losses", "provider": "eager", "cudagraph": True},
        ],
        {
            "clip_prep: frames to both clips": [("limit", 1.6), ("ours", 2.0), ("peer", 2.0)],
            "static_losses: losses and gradient": [("peer", 2.0)],
        },
    ),
    "loader": (
        [
            {"path": "limit: sequential decode, 8 sessions", "frames_per_s": 900.0, "nvdec_percent": 9.0},
            {"path": "unstill 16x2, 8 threads x 2 pipelines", "clips_per_s": 50.0},
            {"path": "DALI, whole file, start 96", "clips_per_s": 9.0},
            {"path": "unstill 16x2", "clips_per_s": 60.0, "of_limit": 0.75},
            {"path": "PyAV + DataLoader, 16 workers, 16x2", "clips_per_s": 30.0},
        ],
        {
            "Delivering random clips to the GPU": [("ours", 60.0), ("limit", 80.0), ("peer", 30.0)],
            "Clips by where in the video they start": [("peer", 9.0)],
            "Decoder threads and pipelines": [("ours", 50.0)],
            "Sequential decoding": [("limit", 900.0)],
        },
    ),
    "step": (
        [
            {"variant": "reference", "model": "m", "batch": 4, **SPREAD, "peak_mib": 9.0},
            {"variant": "albar compiled", "model": "m", "batch": 4, **SPREAD, "peak_mib": 4.0},
            {"variant": "albar compiled", "model": "m", "batch": 8, **SPREAD, "peak_mib": 8.0},
            {"variant": "cross entropy compiled", "model": "m", "batch": 4, "error": "OutOfMemoryError"},
        ],
        {
            "One training step": [("peer", 2.0), ("ours", 2.0)],
            "Memory of a training step": [("peer", 9.0), ("ours", 4.0)],
        },
    ),
    "bias": (
        [
            {"method": "albar", "n": 2, **dict.fromkeys(MEASURES, 50.0), **{f"{m}_sd": 1.0 for m in MEASURES}},
            {"method": "albar", "seed": 0, **dict.fromkeys(MEASURES, 49.0)},
        ],
        {f"Every method: {words}": [("ours", 50.0)] for words, _ in MEASURES.values()},
    ),
    "train": (
        [
            {**RUN, "loader": "real", "clips_per_s": 7.0, **SPREAD, "data_wait_percent": -0.5},
            {**RUN, "loader": "ideal", "clips_per_s": 8.0, **SPREAD},
        ],
        {"Training end to end": [("ours", 7.0), ("limit", 8.0)]},
    ),
    "roofline": (
        [
            {"ceiling": "read", "per_second": 3.0, "unit": "bytes", "in_words": "3 B/s", "how": "so"},
            {
                **RUN,
                **{
                    "stage": "decode",
                    "needed_clips_per_s": 9.0,
                    "delivered_clips_per_s": 8.0,
                    "of_limit_percent": 40.0,
                },
                **{"limit_clips_per_s": 20.0, "arithmetic": "1/s / 2", "unit": "frames"},
            },
            {**RUN, "stage": "copy", "needed_clips_per_s": 9.0, "skipped": "no GPU"},
            {**RUN, "needed_clips_per_s": 9.0, "verdict": "decode-bound"},
        ],
        {"Each stage beside what the machine allows": [("ours", 40.0)]},
    ),
}


@pytest.mark.parametrize("name", ON_A_GPU)
def test_rows_of_a_gpu_are_drawn_in_their_own_words(name):
    rows, wanted = ON_A_GPU[name]
    drawn = figures(result(rows, name=name, device="nvidia-h200", machine={"gpu": "NVIDIA H200"}))
    assert {f.title: [(bar.role, pytest.approx(bar.value)) for bar in f.bars] for f in drawn} == wanted
