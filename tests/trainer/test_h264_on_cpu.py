"""H.264 shards, the converter's default, are trained on and evaluated without a GPU, from the command line."""

import json

import pytest

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.trainer.cli.main import run
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import MotionsConfig

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_train_and_evaluate_h264_shards_on_a_cpu(tmp_path, capsys):
    videos = MotionsConfig(out=tmp_path / "videos", train=8, splits=("train",), workers=1)
    write_motions(videos)
    shards = tmp_path / "data"
    convert(ConvertConfig(source=videos.out / "train", out=shards, codec="h264", short_side=videos.size, workers=1))
    device, out = ["--device", "cpu"], tmp_path / "run"
    options = ["--data", str(shards), "--out", str(out), "--batch-size", "4", "--epochs", "1"]
    assert run(["train", "demo_baseline", *options, *device]) == 0
    record = json.loads((out / "config.json").read_text())
    assert record["environment"]["decoder"] == {"name": "cores", "reason": "DALI cannot decode h264 on cpu"}
    assert run(["evaluate", str(out), "--iid", str(shards), *device, "--out", str(tmp_path / "found")]) == 0
    assert json.loads((tmp_path / "found" / "evaluation.json").read_text())["facts"]["decoder"] == "cores"
    assert "decoder: cores" in capsys.readouterr().out
    # the whole command line: a decoder that cannot be used is named before the first step, with what to do
    assert run(["train", "demo_baseline", *options, *device, "--loader.decoder", "dali"]) != 0
