"""Files never choose the code that runs: a network or program from an untrusted folder needs --trust-model-code."""

import json
import sys

import pytest
import torch
from synthetic_run import loader_of, make_dataset, run_config

from unstill.pipeline.errors import InputError
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.checkpoints.preemption import Preempted
from unstill.trainer.cli.main import run as command_line
from unstill.trainer.config import from_dict, to_dict
from unstill.trainer.inference.classifier import load_classifier
from unstill.trainer.inference.config import ExportConfig, PredictConfig
from unstill.trainer.inference.export import export
from unstill.trainer.inference.predict import predict
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")

NETWORK = """
from pathlib import Path
from torch import nn

Path(__file__).with_name("ran").touch()


def net(classes):
    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, classes))
"""


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A run whose network is a module that is in the current folder, and leaves a file when it is imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "stranger", raising=False)  # of an earlier test
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "stranger.py").write_text(NETWORK)
    make_dataset(tmp_path / "data")
    config = run_config(tmp_path, model=ModelConfig(name="stranger:net"), epochs=1, stop_after=2)
    with pytest.raises(Preempted):
        train(config, make_loader=loader_of())
    train(run_config(tmp_path, model=config.model, epochs=1), make_loader=loader_of())  # resuming needs no flag
    export(ExportConfig(run=tmp_path / "run", out=tmp_path / "exported", trust_model_code=True))
    (tmp_path / "ran").unlink()
    monkeypatch.delitem(sys.modules, "stranger")
    return tmp_path


def test_a_module_named_in_a_file_is_not_imported_unasked(strangers, capsys):
    refusal = r"config\.json: names the network 'stranger:net'.*module 'stranger'.*--trust-model-code"
    for load in (load_model, load_classifier):
        with pytest.raises(InputError, match=refusal):
            load(strangers / "run")
    with pytest.raises(InputError, match=refusal):
        load_classifier(strangers / "exported")
    for arguments in (
        ["predict", "a.mp4", "--model", "exported"],
        ["export", "run", "--out", "again"],
        ["evaluate", "run", "--iid", "data", "--device", "cpu"],
        ["hat", "run", "--original", "data", "--human-only", "data", "--device", "cpu"],
        ["diagnose", "scene-bias", "data", "data", "--run", "run", "--device", "cpu"],
        ["diagnose", "look", "run", "--data", "data", "--out", "out", "--device", "cpu"],
        ["diagnose", "information", "run", "--data", "data", "--device", "cpu"],
        ["diagnose", "static-dynamic", "run", "--data", "data", "--device", "cpu"],
        ["still-bank", "data", "bank.safetensors", "--reference", "run", "--device", "cpu"],
    ):
        assert command_line(arguments) == 2, arguments
        assert "--trust-model-code" in capsys.readouterr().err, arguments
    assert not (strangers / "ran").exists()
    model, _, classes = load_model(strangers / "run", trust_model_code=True)
    assert (strangers / "ran").exists() and model(torch.zeros(1, 3, 2, 4, 4)).shape == (1, len(classes))


def test_a_program_is_not_unpickled_unasked(strangers, monkeypatch):
    record = json.loads((strangers / "exported" / "config.json").read_text())
    (strangers / "exported" / "config.json").write_text(json.dumps(record | {"model": "motion_cnn"}))
    monkeypatch.setattr("unstill.trainer.inference.predict.load_classifier", lambda *_, **__: (None, None))
    monkeypatch.setattr(torch.export, "load", lambda *_: pytest.fail("was unpickled"))
    config = PredictConfig(videos=(), model=strangers / "exported", engine="torch_export")
    with pytest.raises(InputError, match=r"model\.pt2.*--trust-model-code"):
        predict(config)


def test_a_transform_named_in_a_file_is_not_imported(strangers):
    plain = to_dict(run_config(strangers))
    for kind in ("stranger:net", "os:system", "unstill.trainer.train:train", "stranger", ["stranger:net"]):
        plain["inputs"]["transform"] = {"kind": kind}
        with pytest.raises(InputError, match=r"inputs\.transform"):
            from_dict(plain)
    assert not (strangers / "ran").exists()
