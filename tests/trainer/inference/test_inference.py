"""Export and prediction: every format agrees with the run it came from, and files that are no videos cost a line."""

import importlib.util
import json

import av
import numpy as np
import pytest
import torch
from synthetic_run import loader_of, make_dataset, run_config

from unstill.pipeline.errors import InputError
from unstill.pipeline.sandbox.process import SandboxedProcess
from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.inference import predict as predict_module
from unstill.trainer.inference.classifier import load_classifier
from unstill.trainer.inference.config import ExportConfig, PredictConfig
from unstill.trainer.inference.export import export
from unstill.trainer.inference.predict import predict, read_clips
from unstill.trainer.models.config import ModelConfig
from unstill.trainer.train import train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    make_dataset(folder / "data")
    train(run_config(folder, model=ModelConfig(name="motion_cnn"), epochs=8 / 24), make_loader=loader_of())
    return folder / "run"


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    out = tmp_path_factory.mktemp("exported") / "model"
    return export(ExportConfig(run=run, out=out))


def make_video(path, frames, size=(24, 16)):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return path


def grey(levels, size=(24, 16)):
    return [np.full((size[1], size[0], 3), level, np.uint8) for level in levels]


@pytest.mark.slow
def test_an_export_is_the_network_with_its_normalisation(run, exported):
    classifier, facts = load_classifier(exported.folder)
    model, config, classes = load_model(run)
    frames = torch.randint(0, 256, (3, 4, 12, 12, 3), dtype=torch.uint8)
    mean, std = torch.tensor(config.inputs.mean), torch.tensor(config.inputs.std)
    clips = ((frames / 255 - mean) / std).permute(0, 4, 1, 2, 3)
    with torch.inference_mode():
        torch.testing.assert_close(classifier(frames), model(clips), rtol=1e-4, atol=1e-5)
        program = torch.export.load(exported.folder / "model.pt2").module()
        torch.testing.assert_close(program(frames), classifier(frames))  # three clips, though traced with two
    assert facts.classes == tuple(classes) and facts.clip == config.clip
    assert (exported.folder / "labels.txt").read_text().splitlines() == classes
    assert exported.difference["torch_export"] < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxscript", "onnxruntime")),
    reason="needs onnx, onnxscript and onnxruntime",
)
def test_onnx_agrees(run, tmp_path):
    found = export(ExportConfig(run=run, out=tmp_path / "model", formats=("onnx",)))
    assert found.difference["onnx"] < 1e-4
    video = make_video(tmp_path / "a.mkv", grey(range(0, 200, 20)))
    by = [predict(PredictConfig(videos=(video,), model=tmp_path / "model", engine=e))[0] for e in ("torch", "onnx")]
    assert by[0].ranked[0][1] == pytest.approx(by[1].ranked[0][1], abs=1e-4)


@pytest.mark.slow
def test_an_export_appears_whole_or_not_at_all(run, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="exists already"):
        export(ExportConfig(run=run, out=tmp_path))
    with pytest.raises(InputError, match="no checkpoint"):
        export(ExportConfig(run=tmp_path, out=tmp_path / "a"))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch.export, "save", fail)
    with pytest.raises(InputError, match="No space left"):
        export(ExportConfig(run=run, out=tmp_path / "b"))
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_export_is_refused(exported, tmp_path):
    for name in ("labels.txt", "config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((exported.folder / name).read_bytes())
    (tmp_path / "model.safetensors").write_bytes(b"short")
    with pytest.raises(InputError, match=r"model\.safetensors"):
        load_classifier(tmp_path)
    record = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(record | {"format": 3}))
    with pytest.raises(InputError, match="format 3"):
        load_classifier(tmp_path)


def test_videos_are_classified_and_unreadable_ones_named(exported, tmp_path):
    good = make_video(tmp_path / "good.mkv", grey(range(0, 200, 20)))
    (tmp_path / "text.mp4").write_text("not a video")
    videos = (good, tmp_path / "text.mp4", tmp_path / "missing.mp4", tmp_path)
    for engine in ("torch", "torch_export"):
        found = predict(
            PredictConfig(videos=videos, model=exported.folder, engine=engine, views=3, top=4, trust_model_code=True)
        )
        assert [len(each.ranked) for each in found] == [4, 0, 0, 0]
        assert sum(p for _, p in found[0].ranked) == pytest.approx(1)
        assert "unreadable" in str(found[1]) and "No such file" in str(found[2])
        assert str(found[3]) == f"{tmp_path}: is a folder; expected video files, such as {tmp_path}/*"
    with pytest.raises(InputError, match=r"--formats onnx|onnxruntime"):
        predict(PredictConfig(videos=videos, model=exported.folder, engine="onnx"))
    with pytest.raises(InputError, match="expected at least 1"):
        predict(PredictConfig(videos=videos, model=exported.folder, views=0))


def test_a_video_is_decoded_once_where_its_packets_tell_the_number_of_frames(run, tmp_path, monkeypatch):
    clip, video = load_model(run)[1].clip, make_video(tmp_path / "ten.mkv", grey([20 * i for i in range(10)]))
    shown, decoded = predict_module.shown_frames, []

    def counted(path, wanted, sandbox):
        decoded.append(sandbox)
        return shown(path, wanted, sandbox)

    monkeypatch.setattr(predict_module, "shown_frames", counted)
    once = read_clips(video, clip, 3, "require")
    assert decoded == ["require"]
    for packets in (0, 3, 25):  # formats whose packets are not frames
        monkeypatch.setattr(predict_module, "count_packets", lambda *_, packets=packets: packets)
        assert torch.equal(read_clips(video, clip, 3), once)
    assert len(decoded) == 7
    monkeypatch.setattr(SandboxedProcess, "_judge", refuse)
    with pytest.raises(InputError, match="nothing is decoded"):
        read_clips(video, clip, 3, "off")


def refuse(process: SandboxedProcess, missing: list[str]) -> None:
    assert process.limits.sandbox == "off"
    raise InputError("nothing is decoded")


def test_clips_are_cut_as_an_evaluation_cuts_them(run, tmp_path):
    clip = load_model(run)[1].clip  # 4 frames, stride 1
    levels = [20 * i for i in range(10)]
    video = make_video(tmp_path / "ten.mkv", grey(levels))
    shown = lambda views: read_clips(video, clip, views).float().mean((2, 3, 4))  # noqa: E731
    torch.testing.assert_close(shown(1)[0], torch.tensor([60.0, 80, 100, 120]), atol=3, rtol=0)
    torch.testing.assert_close(shown(3)[:, 0], torch.tensor([0.0, 60, 120]), atol=3, rtol=0)
    short = make_video(tmp_path / "two.mkv", grey([0, 200]))
    repeated = read_clips(short, clip, 1).float().mean((2, 3, 4))[0]
    torch.testing.assert_close(repeated, torch.tensor([0.0, 200, 200, 200]), atol=3, rtol=0)
    # the centred square of a wide picture: the borders are cut off
    wide = np.zeros((16, 48, 3), np.uint8)
    wide[:, 16:32] = 250
    assert read_clips(make_video(tmp_path / "wide.mkv", [wide] * 4, (48, 16)), clip, 1).float().mean() > 240
