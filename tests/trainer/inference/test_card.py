"""Model cards: every measure with its interval, what is not known said, and no name of a stranger becomes markup."""

import json
import re
from dataclasses import replace

import pytest
import yaml

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.evaluation.protocols import Share
from unstill.trainer.evaluation.subject import Origin
from unstill.trainer.inference.card import Measured, RunFacts, card_text, read_measured
from unstill.trainer.inference.classifier import Facts

ORIGIN = Origin(
    run="runs/mine",
    step=500,
    pointers=("latest",),
    best_step=None,
    network="motion_cnn",
    method="ALBAR",
    average=False,
    data="data/own/train (0123456789ab)",
    precision="fp32",
)
RUN = RunFacts("mine", ORIGIN, "none", {"unstill": "0.1.0", "commit": "abcdef012345"}, '{"seed": 0}')
FACTS = Facts("motion_cnn", ("left", "right"), ClipConfig(frames=4, size=12), (0.0,) * 3, (1.0,) * 3)
SHARES = {
    "iid": Share(93.75, 91.5, 95.5, 512, 256),
    "scufo": Share(4.5, 3.25, 7.0, 512, 256),
    "scuba.unseen": Share(88.0, 85.0, 90.0, 512, 256),
}


def front_matter(text):
    return yaml.safe_load(text.split("---\n")[1])


def test_a_card_has_data_recipe_commit_measures_limits_and_licence():
    text = card_text(RUN, FACTS, Measured(SHARES, {"set iid": "data/own/test, 512 videos"}), "cc-by-4.0")
    head = front_matter(text)
    assert head["license"] == "cc-by-4.0" and head["pipeline_tag"] == "video-classification"
    (result,) = head["model-index"][0]["results"]
    assert [(m["type"], m["value"]) for m in result["metrics"]] == [
        ("iid", 93.75),
        ("scufo", 4.5),
        ("scuba.unseen", 88.0),
    ]
    assert result["dataset"]["name"] == "data/own/test, 512 videos"
    for row in ("| IID ↑ | 93.8 | 91.5 to 95.5 | 512 | 50.0 |", "| SCUFO ↓ | 4.5 | 3.2 to 7.0 |", "| SCUBA unseen ↑ |"):
        assert row in text
    for said in ("abcdef012345", "data/own/train", '{"seed": 0}', "step 500", "cc-by-4.0", "Apache-2.0"):
        assert said in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        *("## Use", "## Training", "## Measures", "## Limits", "## Licence", "## Recipe"),
    ]
    assert "was not measured" in text  # neither probes nor the actor's appearance are among the shares


def test_without_an_evaluation_the_card_says_so():
    text = card_text(replace(RUN, pretrained="kinetics400"), FACTS)
    assert "nothing is known of the accuracy" in text and "model-index" not in front_matter(text)
    assert front_matter(text)["license"] == "other" and "not stated" in text
    assert "`kinetics400`" in text


def test_names_of_strangers_stay_text():
    evil = 'x](http://evil) <img src=x> | a\n---\nlicense: mit\n"```'
    run = RunFacts(evil, replace(ORIGIN, data=evil, method=evil), evil, {evil: evil}, f'{{"a": "{evil}"}}')
    text = card_text(run, replace(FACTS, model=evil), Measured({evil: SHARES["iid"]}, {evil: evil}), evil)
    head = front_matter(text)
    assert head["model-index"][0]["name"].startswith("x](http://evil)") and head["license"].startswith("x]")
    before_recipe = text.split("## Recipe")[0].split("---\n", 2)[2]
    outside_code = re.sub(r"(?<!\\)`[^`\n]*(?<!\\)`", "", before_recipe)
    assert not re.search(r"(?<!\\)<img|(?<!\\)\]\(http|^---$", outside_code, re.MULTILINE)
    rows = [line for line in before_recipe.splitlines() if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 7) for row in rows)


def test_measures_are_read_from_an_evaluation(tmp_path):
    share = {"value": 50.0, "low": 40.0, "high": 60.0, "samples": 10, "clusters": 5}
    models = {"mine": {"shares": {"iid": share}}, "other": {"shares": {}}}
    (tmp_path / "evaluation.json").write_text(json.dumps({"models": models, "facts": {"views": "1 x 1"}}))
    found = read_measured(tmp_path, "mine")
    assert found == Measured({"iid": Share(50.0, 40.0, 60.0, 10, 5)}, {"views": "1 x 1"})
    with pytest.raises(InputError, match="no model 'third' in it, only 'mine', 'other'"):
        read_measured(tmp_path, "third")
    with pytest.raises(InputError, match=r"no such file; expected a folder that `unstill evaluate --out` wrote"):
        read_measured(tmp_path / "nowhere.json", "mine")
    for broken in ("[]", "{}", '{"models": {"a": {"shares": {"iid": {"value": "x"}}}}, "facts": {}}'):
        (tmp_path / "evaluation.json").write_text(broken)
        with pytest.raises(InputError, match="damaged"):
            read_measured(tmp_path, "mine")
