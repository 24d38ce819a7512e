"""Features of videos: rows against the network itself, resuming, sharing, and the loaders of published heads."""

import dataclasses
import itertools
import json
import signal
import subprocess
import sys

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.frame_walk import FrameWalk
from unstill.pipeline.loading.sampler import ClipConfig
from unstill.trainer.cli.main import run
from unstill.trainer.downstream.encoder import load_encoder
from unstill.trainer.downstream.feature_folder import FeatureFolder
from unstill.trainer.downstream.features.config import FeaturesConfig
from unstill.trainer.downstream.features.crops import crop_regions
from unstill.trainer.downstream.features.extract import extract_features, own_share
from unstill.trainer.downstream.features.file_names import file_names
from unstill.trainer.downstream.features.windows import shown_frames, window_frames, windows
from unstill.trainer.inference.classifier import WEIGHTS, Facts
from unstill.trainer.models.huggingface import import_transformers
from unstill.trainer.models.registry import build_model

pytestmark = pytest.mark.usefixtures("one_thread")
SIZE, FRAMES = 24, (90, 9, 33)


def test_windows_are_slices_of_the_video():
    cases = ((50, 16, 16, 7), (50, 16, 4, 64), (40, 5, 11, 3), (3, 8, 2, 2), (16, 16, 16, 16))
    for total, window, stride, part in cases:
        wanted = window_frames(total, window, stride, np.arange(window))
        numbers = np.unique(wanted)
        parts = iter([(numbers[n : n + part], 10 * numbers[n : n + part]) for n in range(0, len(numbers), part)])
        found = [(frames[rows] // 10).tolist() for frames, rows in windows(parts, wanted)]
        padded = list(range(total)) + [total - 1] * max(0, window - total)
        assert found == [padded[n : n + window] for n in range(0, len(padded) - window + 1, stride)]


def test_the_frames_shown_are_the_middles_of_equal_parts():
    assert shown_frames(16, None, 32).tolist() == list(range(16))
    assert shown_frames(64, None, 16).tolist() == list(range(2, 64, 4))
    assert shown_frames(5, 2, 16).tolist() == [1, 3]
    with pytest.raises(InputError, match="frames 17: a window has 16"):
        shown_frames(16, 17, 16)


def test_crops_are_those_of_torchvision():
    from torchvision.transforms.functional import ten_crop

    picture = torch.arange(3 * 20 * 31).view(3, 20, 31)
    for (region, mirrored), expected in zip(crop_regions(20, 31, 10, 0.8), ten_crop(picture, 16), strict=True):
        top, left, height, width = region
        crop = picture[:, top : top + height, left : left + width]
        same = torch.equal(crop.flip(2) if mirrored else crop, expected)
        assert same or region[:2] == (2, 7)  # torchvision rounds the centre to 8
    assert [region for region, _ in crop_regions(31, 20, 3)] == [(0, 0, 20, 20), (5, 0, 20, 20), (11, 0, 20, 20)]


def test_processes_share_the_videos_evenly():
    frames = np.array([5, 900, 3, 880, 7, 10])
    shares = [own_share(frames, rank, 2) for rank in (0, 1)]
    assert sorted(shares[0] + shares[1]) == list(range(6))
    assert shares[0][0] == 1 and shares[1][0] == 3  # the two long ones are not one process's


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    (root / "source" / "a").mkdir(parents=True)
    for number, frames in enumerate(FRAMES):
        with av.open(str(root / "source" / "a" / f"v{number}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=30)
            stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
            pictures = np.random.default_rng(number).integers(0, 255, (frames, 6, 8, 3), np.uint8)
            for picture in pictures.repeat(8, 1).repeat(8, 2):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
            container.mux(stream.encode())
    convert(ConvertConfig(source=root / "source", out=root / "data", codec="h264", short_side=48, workers=1))
    return root / "data"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = build_model("motion_cnn", 4)
    Facts("motion_cnn", tuple("abcd"), ClipConfig(frames=8, stride=1, size=SIZE), (0.4,) * 3, (0.2,) * 3).save(folder)
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / WEIGHTS)
    return str(folder)


def test_rows_are_what_the_last_layer_sees_of_each_crop(data, model, tmp_path, capsys):
    out = tmp_path / "ten"
    command = [model, str(data), str(out), *"--stride 4 --crops 10 --batch-size 7 --device cpu".split()]
    assert run(["features", *command]) == 0
    assert "3 videos" in capsys.readouterr().out
    classifier, _ = load_encoder(model)
    seen = []
    classifier.model.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    crops = crop_regions(48, 64, 10)
    with FrameWalk(data, SIZE, threads=1) as walk, torch.inference_mode():
        sample = walk.index.keys().index("a_v0")
        videos = walk.videos([sample], lambda _: np.arange(90), lambda _: [region for region, _ in crops])
        frames = np.concatenate([part for _, part in next(videos).parts])
        window = torch.from_numpy(frames[4 * 5 : 4 * 5 + 16][1::2])  # row 5; the network sees 8 of 16 frames
        for k, (_, mirrored) in enumerate(crops):
            classifier((window[:, k].flip(2) if mirrored else window[:, k])[None])
    expected = torch.cat(seen).numpy()
    found = np.load(out / "a_v0.npy", allow_pickle=False)
    assert found.shape == ((90 - 16) // 4 + 1, 10, expected.shape[1]) and found.dtype == np.float32
    np.testing.assert_allclose(found[5], expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found[5, 0] - found[5, 1]).max() > 1e-3  # crops differ
    as_rtfm_and_mgfn_read(out, 10)
    folder = FeatureFolder.open(out)
    assert {key: folder.facts(key, folder.rows(key)).frames for key in folder.files} == {
        f"a_v{n}": frames for n, frames in enumerate(FRAMES)
    }


def as_rtfm_and_mgfn_read(folder, crops):
    """Their ``Dataset.__getitem__`` and ``process_feat``: crops first, each averaged into 32 segments."""
    for path in folder.glob("*.npy"):
        features = np.array(np.load(path, allow_pickle=True), dtype=np.float32).transpose(1, 0, 2)
        divided = []
        for feature in features:
            bounds = np.linspace(0, len(feature), 33, dtype=int)
            pairs = itertools.pairwise(bounds)
            divided.append([feature[a:b].mean(0) if a != b else feature[a] for a, b in pairs])
        divided = np.array(divided, dtype=np.float32)
        magnitude = np.linalg.norm(divided, axis=2)[:, :, np.newaxis]
        assert np.concatenate((divided, magnitude), axis=2).shape == (crops, 32, features.shape[2] + 1)


def test_localisation_code_reads_the_flat_layout(data, model, tmp_path):
    out = tmp_path / "flat"
    options = {"stride": 4, "layout": "flat", "names": "video", "dtype": "float16", "device": "cpu"}
    config = FeaturesConfig(model=model, data=data, out=out, **options)
    assert extract_features(config).made == 3
    record = json.loads((out / "features.json").read_text())
    begin, end = 20 / 30, 36 / 30  # seconds: the frames of row 5
    # ActionFormer's and TriDet's ``__getitem__``
    assert np.load(out / "v0.npy").dtype == np.float16
    feats = np.load(out / "v0.npy").astype(np.float32)[::1, :].transpose()
    assert feats.shape[1] == 19
    segments = (np.array([[begin, end]]) * record["default_fps"] - 0.5 * record["num_frames"]) / record["feat_stride"]
    assert segments.mean() == pytest.approx(5)
    # OpenTAD's padding data set: frames from seconds, then the grid of snippets
    facts = record["videos"]["v0"]
    duration = facts["frames"] / facts["fps"]
    frames = np.array([int(second / duration * facts["frames"] + 1e-9) for second in (begin, end)])
    assert ((frames - record["window"] // 2) / record["stride"]).mean() == pytest.approx(5)


@pytest.mark.slow
def test_tokens_average_to_the_mean_and_pretrained_folders_are_read(data, tmp_path):
    pytest.importorskip("transformers")
    transformers = import_transformers()
    sizes = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "num_hidden_layers": 1}
    shape = {"image_size": SIZE, "num_frames": 8, "patch_size": 8}
    torch.manual_seed(0)
    transformers.VideoMAEForVideoClassification(
        transformers.VideoMAEConfig(**sizes, **shape, num_labels=4)
    ).save_pretrained(tmp_path / "hub")
    layer = "network.videomae.encoder.layer.0"
    config = FeaturesConfig(model=f"hf:{tmp_path / 'hub'}", data=data, out=tmp_path / "a", device="cpu", layer=layer)
    extract_features(config)
    extract_features(dataclasses.replace(config, out=tmp_path / "b", pool="tokens"))
    mean, tokens = (np.load(tmp_path / name / "a_v0.npy") for name in "ab")
    assert mean.shape == (5, 1, 16) and tokens.shape == (5, 1, 4 * 3 * 3, 16)
    np.testing.assert_allclose(tokens.mean(2), mean, rtol=1e-4, atol=1e-6)
    assert tokens.std(2).min() > 0
    with pytest.raises(InputError, match="takes 8 frames, 4 of a window"):
        extract_features(dataclasses.replace(config, window=4))
    with pytest.raises(InputError, match="nothing at single places"):
        extract_features(dataclasses.replace(config, out=tmp_path / "c", pool="tokens", layer="penultimate"))


KILLED = """
import os, signal, sys
from unstill.pipeline import atomic_files
from unstill.trainer.cli.main import run
from unstill.trainer.downstream.features import extract
commit = atomic_files.AtomicFile.commit
def killed(file):
    global left
    if left == 0:
        file.close()  # complete, but without its name
        os.kill(os.getpid(), signal.SIGKILL)
    left -= 1
    commit(file)
atomic_files.AtomicFile.commit = killed
for left in (0, 1, 0, 1, 0):  # files that get their names before the kill
    child = os.fork()  # imports take seconds, and are done once
    if child == 0:
        run(["features", *sys.argv[1:]])
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.slow
def test_a_run_killed_five_times_ends_with_the_same_bytes(data, model, tmp_path):
    config = FeaturesConfig(model=model, data=data, out=tmp_path / "once", device="cpu")
    extract_features(config)
    expected = {path.name: path.read_bytes() for path in config.out.iterdir()}
    assert len(expected) == 4
    out = tmp_path / "killed"
    command = [sys.executable, "-c", KILLED, model, str(data), str(out), "--device", "cpu"]
    codes = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert codes == [str(-signal.SIGKILL)] * 5
    assert len(list(out.glob("*.npy"))) < 3 and list(out.glob(".*partial"))
    again = dataclasses.replace(config, out=out)
    assert extract_features(again).made >= 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == expected
    with pytest.raises(InputError, match="of other options"):
        extract_features(dataclasses.replace(again, stride=8))


def test_processes_make_the_files_of_one_and_damage_is_named_at_the_end(data, model, tmp_path, monkeypatch):
    alone = FeaturesConfig(model=model, data=data, out=tmp_path / "alone", device="cpu")
    extract_features(alone)
    shared = dataclasses.replace(alone, out=tmp_path / "shared")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, made in (("1", 1), ("0", 2)):
        monkeypatch.setenv("RANK", rank)
        assert extract_features(shared).made == made
    monkeypatch.setenv("WORLD_SIZE", "1")
    files = {path.name: path.read_bytes() for path in alone.out.iterdir()}
    assert {path.name: path.read_bytes() for path in shared.out.iterdir()} == files
    apart = dataclasses.replace(alone, out=tmp_path / "apart", isolate=True)  # decoded in processes of their own
    extract_features(apart)
    assert {path.name: path.read_bytes() for path in apart.out.iterdir()} == files
    broken = tmp_path / "broken"
    (broken / "shards").mkdir(parents=True)
    for path in data.rglob("*.*"):
        if path.is_file():
            (broken / path.relative_to(data)).write_bytes(path.read_bytes())
    with FrameWalk(broken, SIZE) as walk:
        index = walk.index
    long = index.keys().index("a_v0")
    shard = broken / index.shard_names[int(index.shard[long])]
    content = bytearray(shard.read_bytes())
    first = int(index.fragment_row[long])
    content[int(index.mp4_offset[long]) + int(index.fragment_end[first]) - 5] ^= 255
    shard.write_bytes(content)
    with pytest.raises(InputError, match=r"1 videos are damaged .* first a_v0 \(frames .* CRC-32"):
        extract_features(dataclasses.replace(alone, data=broken, out=tmp_path / "rest"))
    with pytest.raises(InputError, match=r"1 videos are damaged .* first a_v0"):
        extract_features(dataclasses.replace(apart, data=broken, out=tmp_path / "more"))
    assert sorted(path.name for path in (tmp_path / "rest").glob("*.npy")) == ["a_v1.npy", "a_v2.npy"]


def test_names_that_leave_the_folder_or_come_twice_are_refused(data):
    index = FrameWalk(data, SIZE).index
    assert sorted(file_names(index, "video")) == ["v0", "v1", "v2"]
    ends = np.array([4, 8, 12])
    for text, names, says in (
        (b"a_v0a_v0a_v2", "video", "two videos are called v0"),
        (b"../0a_v1a_v2", "key", "no file|cannot"),
    ):
        text = np.frombuffer(text, np.uint8)
        with pytest.raises(InputError, match=says):
            file_names(dataclasses.replace(index, key_text=text, key_end=ends), names)


def test_the_flat_layout_has_no_place_for_crops(tmp_path):
    with pytest.raises(InputError, match="layout flat"):
        FeaturesConfig(model="m", data=tmp_path, out=tmp_path, layout="flat", crops=3)
