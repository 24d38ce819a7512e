"""Evaluations on disk: the same numbers in every format, and logits that come back from any framework."""

import csv
import json
import re

import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.trainer.evaluation.files import across_seeds, read_facts, read_logits, write_evaluation
from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.scorecard import scorecard

CLASSES = ("left", "right_&_on")


def predictions(seed):
    rng = np.random.default_rng(seed)
    keys = tuple(f"video{i}__{k}" for i in range(10) for k in range(2))
    make = lambda name: Predictions(keys, np.arange(20) % 2, rng.normal(size=(20, 2)), CLASSES, name)  # noqa: E731
    return {name: make(name) for name in ("iid", "scuba.a", "scufo.a", "scuba.b", "scufo.b", "mine")}


@pytest.fixture
def models():
    return {name: predictions(n) for n, name in enumerate(("albar_seed0", "albar_seed1", "albar-seed12", "other_1"))}


def test_every_format_holds_the_same_numbers(models, tmp_path):
    cards = {name: scorecard(sets) for name, sets in models.items()}
    write_evaluation(tmp_path / "out", cards, models, {"views": "1 x 1", "seed": "0"})
    plain = json.loads((tmp_path / "out/evaluation.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out/evaluation.csv").open()))
    page = (tmp_path / "out/evaluation.html").read_text()
    whole = [row for row in rows if not row["class"]]
    assert len(whole) == sum(len(card.shares) for card in cards.values())
    assert all(row["how"] == "views: 1 x 1; seed: 0" for row in rows)
    classes = {(row["model"], row["measure"], row["class"]): row for row in rows if row["class"]}
    assert len(classes) == len(rows) - len(whole)
    for model, card in cards.items():
        for measure, table in card.per_class.items():
            for name, value in table.items():
                assert float(classes.pop((model, measure, name))["percent"]) == pytest.approx(value, abs=1e-4)
    assert not classes
    for row in whole:
        name = row["measure"] + ("." + row["background"] if row["background"] else "")
        share = cards[row["model"]].shares[name]
        assert float(row["percent"]) == pytest.approx(share.value, abs=1e-4)
        assert plain["models"][row["model"]]["shares"][name]["low"] == share.low
        assert (int(row["samples"]), int(row["source_videos"])) == (share.samples, share.clusters)
        assert f"{share.value:.1f} <small>{share.low:.1f}–{share.high:.1f}</small>" in page
    assert plain["measures"]["contrasted"]["better"] == "higher" and plain["measures"]["mine"]["title"] == "mine"
    assert plain["facts"] == {"views": "1 x 1", "seed": "0"}
    assert "right_&amp;_on" in page and "<script" not in page and "http" not in page

    values = [cards[n].values()["contrasted"] for n in ("albar_seed0", "albar_seed1", "albar-seed12")]
    spread = plain["across_seeds"]["albar"]["contrasted"]
    assert spread["mean"] == pytest.approx(np.mean(values)) and spread["deviation"] == pytest.approx(
        np.std(values, ddof=1)
    )
    table = (tmp_path / "out/evaluation.tex").read_text()
    assert rf"${np.mean(values):.1f} \pm {np.std(values, ddof=1):.1f}$" in table and r"other\_1" in table
    assert r"\uparrow" in table and r"\downarrow" in table
    body = [line for line in table.splitlines() if line.endswith(r"\\")]
    assert len({len(re.findall(r"(?<!\\)&", line)) for line in body}) == 1 and len(body) == 3  # head, albar, other

    again = read_logits(tmp_path / "out/predictions")
    assert set(again) == set(models)
    assert read_facts(tmp_path / "out/predictions") == {"views": "1 x 1", "seed": "0"}
    for model, sets in models.items():
        assert scorecard(again[model]).values() == cards[model].values()
        assert again[model]["scuba.a"].classes == CLASSES and set(again[model]) == set(sets)


def test_logits_that_cannot_be_used_are_named(tmp_path):
    with pytest.raises(InputError, match="files; expected predictions named"):
        read_logits(tmp_path)
    (tmp_path / "mine.csv").write_text("key,label,a,b\nx,0,1,0\n")
    with pytest.raises(InputError, match=r"mine\.csv: expected a name like MODEL\.SET\.npz"):
        read_logits(tmp_path)
    (tmp_path / "mine.csv").rename(tmp_path / "lr0.1.scuba.places.csv")
    assert list(read_logits(tmp_path)["lr0.1"]) == ["scuba.places"]  # dots are the model's
    (tmp_path / "lr0.1.scuba.places.csv").rename(tmp_path / "mine.iid.csv")
    assert read_logits(tmp_path)["mine"]["iid"].keys == ("x",)
    read_logits(tmp_path)["mine"]["iid"].save(tmp_path / "mine.iid.npz")
    with pytest.raises(InputError, match=r"mine\.iid is there as \.npz and as \.csv"):
        read_logits(tmp_path)
    assert read_facts(tmp_path)["views"].startswith("not stated")
    (tmp_path / "facts.json").write_text("[1]")
    with pytest.raises(InputError, match=r"facts\.json: not an object of texts"):
        read_facts(tmp_path)


def test_seeds_must_have_been_evaluated_alike(models):
    cards = {name: scorecard(sets) for name, sets in models.items()}
    assert set(across_seeds(cards)) == {"albar"}
    single = across_seeds({"albar_seed0": cards["albar_seed0"]})["albar"]["iid"]
    assert single.runs == 1 and np.isnan(single.deviation)
    del models["albar_seed1"]["mine"]
    cards["albar_seed1"] = scorecard(models["albar_seed1"])
    with pytest.raises(InputError, match="albar: its seeds were not evaluated on the same sets"):
        across_seeds(cards)


def test_one_sided_measures_are_labelled(tmp_path):
    keys = tuple(f"v{n}" for n in range(4))
    said = Predictions(keys, np.arange(4) % 2, np.eye(2)[[0, 1, 1, 1]], CLASSES, "shuffled")
    write_evaluation(tmp_path, {"mine": scorecard({"shuffled": said, "iid": said})}, {}, {"views": "1 x 1"})
    rows = list(csv.DictReader((tmp_path / "evaluation.csv").open()))
    assert {(row["measure"], row["one_sided"]) for row in rows} == {("shuffled", "yes"), ("iid", "no")}
    assert json.loads((tmp_path / "evaluation.json").read_text())["measures"]["shuffled"]["one_sided"] is True
    assert r"Shuffled $\downarrow$$^\ast$" in (tmp_path / "evaluation.tex").read_text()
    assert "one-sided" in (tmp_path / "evaluation.html").read_text()
