"""The trainer's general files know methods by their interface only."""

import dataclasses
import re
from pathlib import Path

import pytest

import unstill.trainer
from unstill.trainer.methods import Albar, Baseline, Sdn, TwoStreams

ROOT = Path(unstill.trainer.__file__).parent
GENERAL = [
    *(ROOT / f"{name}.py" for name in ("train", "build", "step", "loss_module", "boundary", "state", "validation")),
    *(ROOT / "monitoring").glob("*.py"),
    *(ROOT / "optimisers").glob("*.py"),
]
OF_ALL = {"first_stage", "base", "forward", "layers", "label_smoothing", "ce", "top1"}  # or words of other meanings
OWN_NAMES = {
    name
    for method in (Albar, Baseline, Sdn, TwoStreams)
    for name in (method.__name__, *(field.name for field in dataclasses.fields(method)), *method().shown_terms)
} - OF_ALL


@pytest.mark.parametrize("path", GENERAL, ids=lambda path: path.name)
def test_method_blind_files_name_no_method(path):
    text = path.read_text()
    assert {name for name in OWN_NAMES if re.search(rf"\b{re.escape(name)}\b", text, re.IGNORECASE)} == set()
