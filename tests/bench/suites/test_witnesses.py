"""What the demonstration's models read: means over seeds, and a page that says what the committed file says."""

import re
from pathlib import Path

import pytest

from unstill.bench.harness.result_files import read_results
from unstill.bench.suites.witnesses import rows

REPOSITORY = Path(__file__).parents[3]


def test_rows_are_means_with_the_extreme_seeds():
    found = {("known", "class", "albar"): [70.0, 80.0], ("", "class", "baseline"): [60.0]}
    albar, baseline = rows(found, dict.fromkeys(found, "percent"))
    assert (albar.value, albar.p20, albar.p80, albar.role, albar.label) == (75, 70, 80, "ours", "ALBAR")
    assert (baseline.value, baseline.p20, baseline.role) == (60, None, "peer")


@pytest.fixture(scope="module")
def committed():
    (result,) = (r for r in read_results(REPOSITORY / "bench/results") if r.name == "witnesses")
    return {row.title: row.value for row in result.rows}


def test_the_page_says_what_was_measured(committed):
    """Each row of the table of docs/diagnose.md, by its words."""
    text = (REPOSITORY / "docs/diagnose.md").read_text()
    table = text[text.index("| a linear probe of") :].split("\n\n")[0].splitlines()[2:]
    where, checked = "", 0
    for line in table:
        of, about, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        where = of or where
        layer = "logits" if "logits" in where else "penultimate"
        clips = "still" if "still" in where else "filmed"
        what = {"the class": "class", "the scene, given the class": "scene, given the class"}.get(about)
        what = what or "actor, given the class"
        for model, cell in zip(("cross entropy", "ALBAR"), cells, strict=True):
            said = [float(n) for n in re.findall(r"-?\d+", cell)]
            assert said[0] == round(committed[f"{model}: {what}, in {layer} of {clips} clips"]), line
            if len(said) > 1:
                assert said[1] == round(committed[f"{model}: class named by a probe, from {layer} of {clips} clips"])
            checked += 1
    assert checked == 16


@pytest.mark.parametrize(
    ("title", "said"),
    [
        ("cross entropy: static score, penultimate", "1.00 static"),
        ("cross entropy: dynamic score, penultimate", "-0.11 dynamic"),
        ("ALBAR: static score, penultimate", "ALBAR 0.58"),
        ("ALBAR: dynamic score, penultimate", "and 0.24"),
        ("ALBAR: B_scene of one still frame, IID", "is 2.02 nats for both"),
        ("cross entropy: heat on the actor, Grad-CAM", "Grad-CAM 42 %"),
        ("ALBAR: heat on the actor, integrated gradients", "44 and 51 %"),
    ],
)
def test_the_sentences_too(committed, title, said):
    number = re.findall(r"-?\d+(?:\.\d+)?", said)[-1]
    digits = len(number.partition(".")[2])
    assert f"{committed[title]:.{digits}f}" == number
    assert said in " ".join((REPOSITORY / "docs/diagnose.md").read_text().split())
