"""Measured numbers in the prose of README and docs, outside the blocks that are written from the files."""

import importlib.metadata
import json
import math
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from unstill.bench.harness.recipe_plan import FITS, H264_FRAMES
from unstill.bench.report.scaling import ASSUMED_SHARE
from unstill.pipeline.loading.nvdec_limits import DRIVER
from unstill.pipeline.shards.video_format import SNAP
from unstill.trainer.demo.motions.world import MotionsConfig

REPOSITORY = Path(__file__).parents[2]


def value(file: str, title: str, name: str = "value"):
    rows = json.loads((REPOSITORY / "bench/results" / f"{file}.json").read_text())["rows"]
    (row,) = (row for row in rows if row["title"] == title)
    return row[name]


def penalty(words: str, what: str) -> float:
    return value("penalty-cost", f"swin3d_t, ALBAR, {words}, one clip: {what} over cross entropy")


def values(file: str, beginning: str) -> list[float]:
    """Of the rows whose titles begin so."""
    rows = json.loads((REPOSITORY / "bench/results" / f"{file}.json").read_text())["rows"]
    return [row["value"] for row in rows if row["title"].startswith(beginning)]


def above_albar(method: str, column: str) -> list[float]:
    """Points above ALBAR in each of Recast's harder worlds."""
    rows = json.loads((REPOSITORY / "bench/results/recast_worlds.json").read_text())["rows"]
    means = {(row["method"], row["world"]): row[column] for row in rows if "n" in row}
    return [means[method, world] - means["albar", world] for name, world in means if name == "albar"]


WORLD = MotionsConfig()
BLOCK, CAVLC = "kept by a block of swin3d_t's first stage: cross entropy", "layers, CAVLC / layers, CABAC"
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
    (
        "docs/recipes.md",
        "within {:.0f} % of torch's allocator where it was compared, `memory-plan.json`",
        lambda: (math.ceil(100 * max(values("memory-plan", "plan against the allocator"))),),
    ),
    (
        "docs/recipes.md",
        "the lower of {:g} of an H100's peak over the operations (the share is assumed) and of what its decoders "
        "deliver ({:,} frames/s of H.264",
        lambda: (ASSUMED_SHARE, H264_FRAMES),
    ),
    (
        "docs/penalty.md",
        "A unit is tokens x width x 4 bytes = {:.1f} MB",
        lambda: tuple({value("penalty-cost", BLOCK) / value("penalty-cost", BLOCK, "units_of_tokens_times_width")}),
    ),
    (
        "docs/penalty.md",
        "Targets: at most {:g} times its time, {:g} of its memory, {:g} times the CPU time of cross entropy",
        lambda: tuple(
            value("step-cpu", f"reduced_swin: cpu {what}", "at_most")
            for what in ("time over one backward", "memory over one backward", "cost over cross entropy")
        ),
    ),
    (
        "docs/reference/commands.md",
        "cavlc decodes in {} of cabac's time on a CPU and costs a GPU nothing; cabac makes files {:.0f} % smaller",
        lambda: (
            {2: "two thirds"}[round(3 * value("encoding-cpu", f"decoding a 16x2 clip, CPU time: {CAVLC}"))],
            100 * (1 - 1 / value("encoding-cpu", f"size at equal PSNR of all frames: {CAVLC}")),
        ),
    ),
    (
        "docs/recast.md",
        "In every harder world `anti` is above ALBAR's: by {:.0f} to {:.0f} points with the fade-in, by {:.0f} to "
        "{:.0f} with the moving part",
        lambda: tuple(
            extreme(above_albar(method, "anti")) for method in ("recast", "recast_moving") for extreme in (min, max)
        ),
    ),
    (
        "docs/recast.md",
        "the fade-in costs IID: {:.0f} points below ALBAR's with `wanderers`",
        lambda: (-min(above_albar("recast", "iid")),),
    ),
    ("docs/shards.md", "within {:g} % of a common one", lambda: (float(100 * SNAP),)),
    (
        "README.md",
        "in {:.0f} % of the training videos the scene gives the class away, and so, independently, does the actor's "
        "appearance. The same network is trained twice, with cross entropy and with ALBAR, and tested on {} videos a "
        "row",
        lambda: (100 * WORLD.scene_rate, WORLD.test),
    ),
    (
        "docs/demonstration.md",
        "goes with the class in {:.0f} % of the {:,} training videos",
        lambda: (100 * WORLD.actor_rate, WORLD.train),
    ),
    (
        "docs/static-bias.md",
        "tells both zooms by the size, and is right in {:.0f} % (2/8 + 6/8 x 1/8)",
        lambda: (100 * (2 / 8 + (1 - 2 / WORLD.frames) / 8),),
    ),
    *(
        (page, f"{words} card of {FITS[recipe]}", lambda: ())
        for page, words, recipe in (
            ("README.md", "This fits a", "own_small_albar"),
            ("docs/own-videos.md", "16 x 112, every second frame | a", "own_small"),
            ("docs/own-videos.md", "32 x 224, every second frame | a", "own_albar"),
            ("docs/recipes.md", "your own videos, a", "own_small"),
        )
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


def test_make_demo_prints_what_the_readme_says():
    """Seed 0 is what `make demo` trains; README states a spread of two of its ±."""
    text = (REPOSITORY / "README.md").read_text()
    assert "`make demo` is seed 0." in text and "within two of the ±" in " ".join(text.split())
    table = re.search(r"<!-- begin demonstration -->\n(.*?)\n\n", text, re.S)
    rows = json.loads((REPOSITORY / "bench/results/demo.json").read_text())["rows"]
    (plain,), (albar,) = (
        [row for row in rows if row.get("seed") == 0 and row.get("model") == model] for model in ("baseline", "albar")
    )
    assert table
    lines = table[1].splitlines()[2:]
    names = ("iid", "scuba", "scufo", "scufo_probe", "contrasted", "anti")  # by the words of the lines
    for name, line in zip(names, lines, strict=True):
        assert line.lower().startswith(f"| {name.replace('_', ' ')}")
        for run, (mean, spread) in zip((plain, albar), re.findall(r"([\d.]+) ± ([\d.]+)", line), strict=True):
            assert abs(run[name] - float(mean)) <= 2 * float(spread) + 0.05, (name, run["model"])


def test_the_packages_take_as_much_disk_as_the_pages_say():
    """What is installed here for unstill and its tests, without files that Python wrote itself."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    waiting = [Requirement(text) for text in project["dependencies"] + project["optional-dependencies"]["dev"]]
    sizes: dict[str, int] = {}
    while waiting:
        wanted = waiting.pop()
        try:
            found = importlib.metadata.distribution(wanted.name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if found.name not in sizes or wanted.extras:
            sizes[found.name] = sum(file.size or 0 for file in found.files or [])
            needs = map(Requirement, found.requires or [])
            extras = ["", *wanted.extras]
            waiting += [n for n in needs if n.marker is None or any(n.marker.evaluate({"extra": e}) for e in extras)]
    gigabytes = sum(sizes.values()) / 1e9
    if gigabytes < 5:
        pytest.skip(f"another build of torch: {gigabytes:.1f} GB")
    for page in ("README.md", "docs/install.md"):
        said = re.search(r"about (\d+) GB", (REPOSITORY / page).read_text())
        assert said and abs(int(said[1]) - gigabytes) < 1, (page, gigabytes)


def test_the_readme_has_no_measured_number_of_its_own():
    """Percentages, factors and decimals stand in blocks that are written from the files; others are settings."""
    text = (REPOSITORY / "README.md").read_text()
    text = re.sub(r"<!-- begin (.*?) -->.*?<!-- end \1 -->|```.*?```|`[^`\n]+`|\]\([^)]*\)", "", text, flags=re.S)
    settings = {"95 %"}  # how often scene and actor follow the class in training
    found = set(re.findall(r"\d+(?:\.\d+)? %|\d+\.\d+\b(?! or newer)|\d[\d.]* (?:x|times)\b", text))
    assert found - settings == {"2.0"}  # the licence's version
