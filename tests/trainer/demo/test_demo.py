"""The demonstration from end to end on a handful of videos, and what it says about its numbers."""

import json
import re
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from unstill.trainer.demo.run import STAGES, demo
from unstill.trainer.demo.settings import COLUMNS, DemoConfig
from unstill.trainer.demo.verdict import verdict
from unstill.trainer.evaluation.protocols import Share

PUBLISHED_KEYS = {
    "iid", "scuba", "scufo", "conflfg", "contrasted", "scufo_least", "scufo_probe", "scufo_feature_probe",
    "anti", "swap", "shaken_scufo", "reversed_keep", "reversed_flip",
}  # fmt: skip


@pytest.fixture
def single_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_the_whole_demonstration(tmp_path, capsys, single_thread):
    config = DemoConfig(out=tmp_path / "demo", train=32, test=16, epochs=2)
    results = demo(config)
    printed = capsys.readouterr()
    assert set(results) == {"baseline", "albar", "seed", "seconds"}
    assert set(results["baseline"]) == set(results["albar"]) == PUBLISHED_KEYS == set(COLUMNS)
    assert all(0 <= results[name][key] <= 100 for name in ("baseline", "albar") for key in PUBLISHED_KEYS)
    assert set(results["seconds"]) == {*STAGES, "total"}
    assert json.loads((config.out / "results.json").read_text()) == results
    assert f"{results['albar']['contrasted']:.1f}" in printed.out and "ALBAR" in printed.out
    page = (config.out / "report.html").read_text()
    assert page.count('<div class="measure">') == 13 and page.count('class="example"') == 6
    shown = re.findall(r'<span class="value">([\d.]+)</span>', page)
    assert shown[:2] == [f"{results[name]['iid']:.1f}" for name in ("baseline", "albar")]
    assert "| Contrasted ↑ |" in (config.out / "models/albar/README.md").read_text()
    sets = "iid reversed shuffled static_iid scuba.unseen scufo.unseen shaken_scufo.unseen conflfg anti swap".split()
    assert {p.name for p in (config.out / "predictions").glob("albar.*")} == {f"albar.{name}.npz" for name in sets}

    # given again: nothing is repeated, the numbers stay
    stamps = {path: path.stat().st_mtime_ns for path in config.out.rglob("*") if path.is_file()}
    assert demo(config) == results
    changed = {path.name for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp}
    assert changed <= {"results.json", "stages.json"}
    # one stage's output lost: only that stage is done again, and its numbers are the same
    (config.out / "evaluation.json").unlink()
    again = demo(config)
    assert again["baseline"] == results["baseline"] and again["albar"] == results["albar"]
    # other epochs: the videos and shards stay
    demo(replace(config, epochs=1))
    assert (config.out / "videos/motions.json").stat().st_mtime_ns == stamps[config.out / "videos/motions.json"]
    dataset = config.out / "shards/train/dataset.json"
    assert dataset.stat().st_mtime_ns == stamps[dataset]


def numbers(**changes):
    still = {"scufo_least": 71.9, "scufo_probe": 92.0, "scufo_feature_probe": 95.0}
    albar = {"iid": 97.3, "scuba": 95.6, "scufo": 0.8, "anti": 40.0} | still | changes
    still = {"scufo_least": 1.2, "scufo_probe": 79.7, "scufo_feature_probe": 96.0}
    return {"baseline": {"iid": 95.5, "scuba": 66.0, "scufo": 59.0, "anti": 1.3} | still, "albar": albar}


def test_the_verdict_claims_no_more_than_the_numbers():
    text = verdict(numbers())
    assert text.startswith(
        "ALBAR hid what a still frame gives away (SCUFO 59.0 → 0.8 %, guessing 12.5 %; the label is the least likely "
        "class of 71.9 % of the still clips, and a linear probe reads the class from the logits of 79.7 → 92.0 %), "
        "removed the influence of"
    )
    # no SCUFO proves that a label is gone: at guessing it can be the least likely class of most still clips
    assert all("hid what a still frame" in verdict(numbers(scufo=scufo)) for scufo in (0.0, 10.0, 12.5, 14.9))
    # nor does a probe of the logits alone: the features may know it
    assert "hid what a still frame" in verdict(numbers(scufo=12.5, scufo_probe=13.0))
    assert "removed what a still frame" in verdict(numbers(scufo=12.5, scufo_probe=13.0, scufo_feature_probe=14.0))
    assert (
        "but only reduced the influence of the moving actor's appearance" in text
        and "40.0 % of the videos (cross entropy 1.3 %)" in text
    )
    assert text.count(".") - len(re.findall(r"\d\.\d", text)) == 1  # one sentence
    assert "only reduced what a still frame gives away" in verdict(numbers(scufo=30.0))
    assert "did not reduce what a still frame gives away" in verdict(numbers(scufo=60.0))
    assert "only reduced the influence of the scene" in verdict(numbers(scuba=80.0))
    assert "did not reduce the influence of the moving actor" in verdict(numbers(anti=1.0))
    assert "removed the influence of the moving actor" not in verdict(numbers(anti=97.0))


def test_the_table_fits_a_terminal(capsys):
    from unstill.trainer.demo.run import show

    results = {n: {c: 12.345 for c in COLUMNS} for n in ("baseline", "albar")}
    results |= {"seed": 3, "seconds": {"total": 125.0}}
    shares = {n: {c: Share(12.345, 10.0, 14.0, 512, 512) for c in COLUMNS} for n in ("baseline", "albar")}
    show(results, shares, DemoConfig().out, Console(width=80, force_terminal=False))
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80 and any("2 min 05 s" in line for line in lines)
