"""Measured numbers in the prose of README and docs, outside the blocks that are written from the files."""

import json
import re
from pathlib import Path

import pytest

from unstill.pipeline.loading.nvdec_limits import DRIVER

REPOSITORY = Path(__file__).parents[2]


def value(file: str, title: str, name: str = "value"):
    rows = json.loads((REPOSITORY / "bench/results" / f"{file}.json").read_text())["rows"]
    (row,) = (row for row in rows if row["title"] == title)
    return row[name]


def penalty(words: str, what: str) -> float:
    return value("penalty-cost", f"swin3d_t, ALBAR, {words}, one clip: {what} over cross entropy")


ALBAR, PLAIN = "a step of hmdb51_albar", "a step of hmdb51_baseline"
CLAIMS = [  # page, sentence, its numbers
    (
        "docs/penalty.md",
        "that took {:.2f} times the memory of plain cross entropy on Video Swin-T (`recipes-cpu.json`: {:,.1f} MiB and "
        "{:,.1f} MiB",
        lambda: (
            value("recipes-cpu", ALBAR, "peak_mib") / value("recipes-cpu", PLAIN, "peak_mib"),
            value("recipes-cpu", ALBAR, "peak_mib"),
            value("recipes-cpu", PLAIN, "peak_mib"),
        ),
    ),
    (
        "docs/methods.md",
        "Cost: {:.1f} to {:.1f} times the operations of cross entropy, and {:.1f} to {:.1f} times the memory of one "
        "clip",
        lambda: (
            penalty("closed attention", "operations"),
            penalty("closed attention and MLP", "operations"),
            penalty("closed attention and MLP", "real memory"),
            penalty("closed attention", "real memory"),
        ),
    ),
    (
        "docs/own-videos.md",
        "The memory plan of r3d_18 with ALBAR is {:.2f} GiB a clip in bf16 and {:.2f} in float32",
        lambda: tuple(
            value("memory-plan", f"r3d_18 16x112x112, albar, {precision}, eager") for precision in ("bf16", "fp32")
        ),
    ),
    ("README.md", "an NVIDIA driver of {} or newer", lambda: (DRIVER,)),
    ("docs/install.md", "NVIDIA, driver {} or newer", lambda: (DRIVER,)),
]


@pytest.mark.parametrize(
    ("page", "sentence", "numbers"), CLAIMS, ids=[f"{page}: {text[:40]}" for page, text, _ in CLAIMS]
)
def test_sentences_say_what_the_files_say(page, sentence, numbers):
    text = " ".join((REPOSITORY / page).read_text().split())
    assert sentence.format(*numbers()) in text


def test_the_demonstration_takes_as_long_as_the_readme_says():
    notes = json.loads((REPOSITORY / "bench/results/demo.json").read_text())["notes"]
    minutes = [float(total) / 60 for note in notes for total in re.findall(r"'total': ([\d.]+)", note)]
    said = re.search(r"make demo    # about (\d+) minutes on two cores", (REPOSITORY / "README.md").read_text())
    assert said and min(minutes) - 1 <= int(said[1]) <= max(minutes) + 1, minutes


def test_the_readme_has_no_measured_number_of_its_own():
    """Percentages, factors and decimals stand in blocks that are written from the files; others are settings."""
    text = (REPOSITORY / "README.md").read_text()
    text = re.sub(r"<!-- begin (.*?) -->.*?<!-- end \1 -->|```.*?```|`[^`\n]+`|\]\([^)]*\)", "", text, flags=re.S)
    settings = {"95 %"}  # how often scene and actor follow the class in training
    found = set(re.findall(r"\d+(?:\.\d+)? %|\d+\.\d+\b(?! or newer)|\d[\d.]* (?:x|times)\b", text))
    assert found - settings == {"2.0"}  # the licence's version
