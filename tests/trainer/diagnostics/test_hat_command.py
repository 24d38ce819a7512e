"""``unstill diagnose hat`` on real shards: every dataset reaches its ratio, and the backgrounds are joined by key."""

import json

import pytest
import torch
from torch import nn

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import CLASSES, MotionsConfig
from unstill.trainer.diagnostics import hat_command
from unstill.trainer.diagnostics.config import HatConfig
from unstill.trainer.diagnostics.hat_command import diagnose_hat, measure_hat
from unstill.trainer.diagnostics.presentation import write
from unstill.trainer.evaluation.config import EvaluateOptions
from unstill.trainer.evaluation.subject import Subject
from unstill.trainer.evaluation.truth import labels_from_csv, read_truth

CPU = EvaluateOptions(device="cpu", batch_size=8)


class SaysLeft(nn.Module):
    """Whatever it is shown."""

    def forward(self, x):
        return torch.eye(8)[torch.full((len(x),), CLASSES.index("left"))]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("hat")
    videos = MotionsConfig(out=root / "videos", test=16, splits=("iid", "anti"), size=32, workers=1)
    for split, folder in write_motions(videos).items():
        convert(ConvertConfig(source=folder, out=root / split, codec="vp9", short_side=32, workers=1))
    rows = [f"{key},{row['scene']}" for key, row in read_truth(root / "videos/truth/anti.csv").items()]
    (root / "behind.csv").write_text("\n".join(["key,background", *rows]))
    return root


@pytest.mark.slow
def test_all_four(data, monkeypatch):
    model = Subject("m", SaysLeft(), CLASSES, ClipConfig(frames=4, stride=1, size=32), (0.5,) * 3, (0.5,) * 3)
    monkeypatch.setattr(hat_command, "load_subject", lambda run, **_: model)
    monkeypatch.setattr(hat_command, "describe_runs", lambda runs: {})
    config = HatConfig(
        runs=(data / "m",),
        original=data / "iid",
        background_only=data / "iid",
        human_only=data / "iid",
        swap=data / "anti",
        swap_backgrounds=data / "behind.csv",
        run=CPU,
        out=data / "hat.json",
    )
    found = measure_hat(config)["m"]
    behind = [row["scene"] for row in read_truth(data / "videos/truth/anti.csv").values()]
    values = {"bor": 100, "hor": 100, "shacc": 12.5, "sberr": 100 * behind.count("left") / len(behind)}
    assert found.values() == pytest.approx(values)
    diagnosis = diagnose_hat(config)
    assert write(diagnosis, config.out) == [data / "hat.json"]
    record = json.loads((data / "hat.json").read_text())["results"]["m"]
    assert record["ratios"] == {"bor": 100, "hor": 100} and record["swaps"]["shacc"]["value"] == 12.5
    assert [row[0] for row in diagnosis.tables[0].rows] == [
        "BOR (lower)",
        "HOR (higher)",
        "SHAcc (higher)",
        "SBErr (lower)",
    ]


def test_what_is_missing_is_named(data):
    with pytest.raises(InputError, match="--original"):
        HatConfig(runs=(data,), human_only=data / "iid")
    with pytest.raises(InputError, match="--swap-backgrounds together"):
        HatConfig(runs=(data,), swap=data / "anti")
    with pytest.raises(InputError, match="at least one of"):
        HatConfig(runs=(data,), original=data / "iid")
    (data / "wrong.csv").write_text("key,background\nx,nowhere\n")
    with pytest.raises(InputError, match="no column or class 'nowhere'"):
        labels_from_csv(data / "wrong.csv", "background", CLASSES)
