"""The report draws what the result files say, all of it, and nothing else."""

import json
import re
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image

from unstill.bench.harness.bottleneck import Stage
from unstill.bench.harness.ceilings import Ceiling
from unstill.bench.harness.loader import on_gpu
from unstill.bench.harness.result_files import Result, read_results
from unstill.bench.harness.row import Row
from unstill.bench.harness.section import PICTURES
from unstill.bench.harness.step_process import variant_row
from unstill.bench.harness.training_step import Variant
from unstill.bench.report.figures import figures, targets
from unstill.bench.report.page import ReportOptions, run, verdict
from unstill.bench.suites import bias, roofline, sections, train
from unstill.pipeline.errors import InputError

COMMITTED = Path(__file__).parents[3] / "bench" / "results"


def content(**changes) -> dict:
    rows = [{"title": "unstill", "p20": 1.0, "value": 2.0, "p80": 3.0, "unit": "clips/s", "better": "higher"}]
    machine = {"cpu": "Abacus", "cores": 2}
    fixed = {"command": "unstill bench toy", "commit": "0123456789ab", "date": "2026-01-02T03:04:05+00:00"}
    return {"name": "toy", **fixed, "device": "cpu", "machine": machine, "rows": rows, "notes": []} | changes


def result(rows: list[Row], **changes) -> Result:
    return Result(file="toy-cpu.json", **content(rows=rows, **changes))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> str:
    """The page of the committed files."""
    out = tmp_path_factory.mktemp("report")
    path = run(ReportOptions(results=COMMITTED, out=out))
    pictures = {f"report-{name}.png" for name in PICTURES}
    assert {path.name for path in out.iterdir()} == {"report.html", *pictures}
    for name in pictures:  # on GitHub's page, 830 pixels wide, a picture is at most three screens high
        width, height = Image.open(out / name).size
        assert width == 1.5 * 830 and height < 1.5 * 830 * 3, name
    return path.read_text()


@pytest.mark.slow
def test_every_committed_file_is_drawn_with_its_command_commit_device_and_day(page):
    for found in read_results(COMMITTED):
        for caption in (found.file, found.command, found.commit, found.where, found.date[:10]):
            assert str(escape(caption)) in page
        for note in found.notes:
            assert note.replace("&", "&amp;").replace("'", "&#39;").replace(">", "&gt;").replace("<", "&lt;") in page


@pytest.mark.slow
def test_the_page_needs_nothing_else(page):
    assert not re.search(r"<script|<link|@import|url\(|src=|https?://", page)
    widths = [float(w) for w in re.findall(r"(?:left|width):([\d.]+)%", page)]
    assert widths and max(widths) <= 100.01


def test_every_row_that_names_a_figure_is_drawn():
    known = sections()
    for found in read_results(COMMITTED):
        drawn = figures(found, known[found.name])
        assert bool(drawn) == bool(known[found.name].charts) and all(figure.bars for figure in drawn)
        bars = {id(bar): bar for figure in drawn for bar in figure.bars}
        named = [row for row in found.rows if row.figure]
        assert len(bars) >= len([row for row in named if row.value is not None]), found.file


def test_a_row_of_an_unknown_figure_is_an_error_that_names_it():
    row = Row(title="x", value=1.0, unit="ms", figure="of another version")
    with pytest.raises(InputError, match=r"toy-cpu.json: rows name the figure 'of another version', expected one of"):
        figures(result([row]), sections()["step"])


def test_an_unknown_benchmark_is_drawn_by_its_units_and_its_other_rows_are_in_the_table(tmp_path):
    rows = [
        {"title": "decode <b>", "model": "m", "p20": 8.0, "value": 9.0, "p80": 10.0, "unit": "s", "better": "lower"},
        {"title": "limit: decode", "value": 4.0, "unit": "s", "better": "lower", "role": "limit"},
        {"title": "decode", "unit": "MB"},
        {"title": "words only", "found": "a sentence"},
    ]
    (tmp_path / "toy-cpu.json").write_text(json.dumps(content(rows=rows)))
    (drawn,) = figures(read_results(tmp_path)[0], None)
    assert [(bar.label, bar.value, bar.role) for bar in drawn.bars] == [
        ("decode <b>", 9.0, "ours"),
        ("limit: decode", 4.0, "limit"),
    ]
    assert drawn.better == "lower" and (drawn.bars[0].low, drawn.bars[0].high) == (8.0, 10.0)
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
        json.dumps(content(rows=[{"value": 3}])),
        json.dumps(content(rows=[{"title": "x", "value": "3"}])),
        json.dumps(content(rows=[{"title": "x", "value": 3, "at_most": 2, "met": True}])),
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


def test_the_worst_of_the_rows_of_a_target_is_listed():
    found = targets(
        result(
            [
                Row(title="rate", value=9.0, unit="clips/s", at_least=10.0),
                Row(title="peak, a", value=3.0, unit="MB", at_most=4, target="peak"),
                Row(title="peak, b", value=5.0, unit="MB", at_most=4, target="peak"),
                Row(title="speed, a", value=None, at_least=1, target="speed"),
                Row(title="speed, b", value=2.0, at_least=1, target="speed"),
                Row(title="no target", value=5.0, unit="MB"),
            ]
        )
    )
    assert [(t.what, t.bound, t.row.met) for t in found] == [
        ("rate", "at least 10", False),
        ("peak, b (the worst of 2)", "at most 4", False),
        ("speed, a (the worst of 2)", "at least 1", False),
    ]
    words = verdict([found[0].result], found)
    assert words.startswith("0 of 3") and "rate, 9 instead of at least 10" in words and "No GPU" in words
    assert "speed, a (the worst of 2), not measured instead of at least 1" in words


RUN = {"recipe": "r", "model": "m", "method": "albar", "clip": "16x2", "batch": 8}
TIMED = {"p20": 1.0, "p50": 2.0, "p80": 3.0}
OF_A_GPU = {  # rows as the benchmarks make them where there is a GPU, and what is drawn of them
    "loader": (
        [
            on_gpu._decoder_row("sequential decode, 8 sessions", 900.0, 9.0),
            on_gpu._wall_row("unstill 16x2, 8 threads x 2 pipelines", {"clips_per_s": 50.0}, "threads"),
            on_gpu._wall_row("DALI, whole file, start 96", {"clips_per_s": 9.0}, "gpu start"),
            on_gpu._wall_row("unstill, 16x2", {"clips_per_s": 60.0, "of_limit": 0.75}, "gpu rate"),
            on_gpu._wall_row("sequential decoding, 16x2", {"clips_per_s": 80.0}, "gpu rate", role="limit"),
            on_gpu._wall_row("PyAV + DataLoader, 16 workers, 16x2", {"clips_per_s": 30.0}, "gpu rate"),
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
            variant_row(Variant("reference", "m", 4, kind="reference"), TIMED, {"peak_mib": 9.0}),
            variant_row(Variant("albar compiled", "m", 4), TIMED, {"peak_mib": 4.0}),
            variant_row(Variant("cross entropy compiled", "m", 4), None, {"error": "out of memory"}),
        ],
        {
            "One training step": [("peer", 2.0), ("ours", 2.0)],
            "Memory of a training step": [("peer", 9.0), ("ours", 4.0)],
        },
    ),
    "bias": (
        [
            bias.mean_row({"method": "albar", "n": 2, **dict.fromkeys(bias.COLUMNS, 50.0)}),
            bias.run_row({"method": "albar", "seed": 0, **dict.fromkeys(bias.COLUMNS, 49.0)}),
        ],
        {f"Every method: {words}": [("ours", 50.0)] for words, _ in bias.MEASURES.values()},
    ),
    "train": (
        [
            train.loader_row({**RUN, "loader": "real", "clips_per_s": 7.0, "data_wait_percent": -0.5}),
            train.loader_row({**RUN, "loader": "ideal", "clips_per_s": 8.0}),
        ],
        {"Training end to end": [("ours", 7.0), ("limit", 8.0)]},
    ),
    "roofline": (
        [
            roofline.ceiling_row(Ceiling(name="read", unit="bytes", rate=3.0, how="so")),
            roofline.stage_row(Stage(name="decode", delivered=8.0, work=1.0, unit="frames", ceiling=20.0), 9.0, RUN),
            roofline.stage_row(Stage(name="copy", delivered=None, how="no GPU"), 9.0, RUN),
        ],
        {"Each stage against what the machine allows": [("ours", 40.0)]},
    ),
}


@pytest.mark.parametrize("name", OF_A_GPU)
def test_rows_of_a_gpu_are_drawn_where_they_say(name):
    rows, wanted = OF_A_GPU[name]
    found = result(rows, name=name, device="nvidia-h200", machine={"gpu": "NVIDIA H200"})
    drawn = figures(found, sections()[name])
    assert {f.title: [(bar.role, pytest.approx(bar.value)) for bar in f.bars] for f in drawn} == wanted
