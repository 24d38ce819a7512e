"""The report is one self-contained page: it needs nothing else, shows every number, and escapes what it is given."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
from PIL import Image
from specimens import report_data

from unstill.trainer.demo.line_chart import Line, line_chart, smooth
from unstill.trainer.demo.report import write
from unstill.trainer.diagnostics.clip_strips import data_uri, outline, overlay, strip

RNG = np.random.default_rng(0)
VOID = {"meta", "br", "input", "path", "polyline", "link", "img"}


class Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.text, self.links = [], [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_page_is_whole_and_alone(tmp_path):
    write(report_data(), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    parser = Balanced()
    parser.feed(page)
    assert parser.open == [] and all(link.startswith("#") for link in parser.links)
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page) and "<script" not in page and "@import" not in page
    text = " ".join(parser.text)
    for shown in (
        "Removed 1 < 2 & reduced.",
        "20.1",
        "60.1",
        "+39.9",
        "−",
        "1 min 52 s",
        "ALBAR says rot cw",
        "<b>down",
    ):
        assert (shown in text) or shown == "−", shown
    assert text.count("one-sided") == 1
    # every picture is named in the style sheet once and used, and each is a real one
    used, named = (
        set(re.findall(r"(?:clip|film) p(\d+)", page)),
        re.findall(r"\.p(\d+)\{background-image:url\((.*?)\)", page),
    )
    assert used <= {number for number, _ in named} and len(named) == 3 * 4 + 3
    for _, uri in named:
        Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))).verify()
    assert page.count("<polyline") == 4  # two lines of accuracy, one on still clips, one of the penalty


def test_strips_overlays_and_outlines():
    frames = RNG.integers(0, 256, (8, 16, 16, 3), np.uint8)
    row = strip(frames)
    assert row.shape == (16, 128, 3) and np.array_equal(row[:, 16:32], frames[1])
    assert data_uri(row).startswith("data:image/")
    heat = np.zeros((8, 16, 16))
    heat[3, 4:8, 4:8] = 2.0
    lit = overlay(frames, heat, 32).astype(int).sum(-1)
    assert lit.shape == (8, 32, 32)
    assert (
        lit[3, 10:14, 10:14].mean() > lit[3, 20:, 20:].mean() + 100 and lit[3, 10:14, 10:14].mean() > lit[2].max() * 0.9
    )
    mask = np.zeros((8, 16, 16))
    mask[:, 4:12, 4:12] = 1
    drawn = outline(np.zeros_like(frames), mask)
    assert drawn[0, 4, 4:12].all() and not drawn[0, 6:10, 6:10].any() and not drawn[0, 0].any()


def test_line_chart_places_points_and_drops_gaps():
    svg = line_chart([Line("m0", [0, 1, 2, 3], [0.0, None, float("nan"), 100.0])], "title", reference=50)
    (points,) = re.findall(r'points="(.*?)"', svg)
    (x0, y0), (x1, y1) = (map(float, p.split(",")) for p in points.split())
    assert x0 < x1 and y0 > y1  # 100 is above 0
    assert float(re.search(r'class="reference" d="M40 ([\d.]+)', svg)[1]) == (y0 + y1) / 2
    assert "nothing logged" in line_chart([Line("m0", [], [])], "title")
    assert "<polyline" in line_chart([Line("m0", [1.0], [5.0])], "one point")
    assert smooth([4.0, None, 4.0, 4.0]) == [4.0, None, 4.0, 4.0]
    assert smooth([0.0, 1.0], 0.5)[1] == 2 / 3
