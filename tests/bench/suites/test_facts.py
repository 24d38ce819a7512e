"""A machine on which nothing else can work says why."""

import json

import pytest
import torch

from unstill.bench.suites import facts


@pytest.mark.parametrize(("version", "met"), [("580.65.06", True), ("575.57.08", False), ("unknown", False)])
def test_an_old_driver_misses_the_target(version, met):
    row = facts.driver_row(version)
    assert row.met is met and "580" in row.facts["remedy"]


def test_codecs_are_found_by_decoding(tmp_path):
    # frames are compared, not only delivered: an empty picture would be 20 levels off or more
    assert facts.decoding_error("vp9", torch.device("cpu")) is None
    found = json.loads(facts.run(facts.FactsBench(out=tmp_path)).read_text())["rows"]
    decodes = {row["title"]: (row["value"], row.get("met")) for row in found if "decodes" in row["title"]}
    if not torch.cuda.is_available():
        assert decodes["vp9 decodes on cpu"] == (1, True) and decodes["h264 decodes on cpu"] == (0, None)
