"""B_scene: the formula, the probe, and frames of real shards."""

import math

import numpy as np
import pytest
import torch
import torchvision.models as zoo

from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.errors import InputError
from unstill.trainer.demo.motions.files import write_motions
from unstill.trainer.demo.motions.world import CLASSES, MotionsConfig
from unstill.trainer.diagnostics.config import SceneBiasConfig, SceneLabelConfig
from unstill.trainer.diagnostics.frame_features import FrameFeatures, FrameModel, frame_features, places365
from unstill.trainer.diagnostics.scene_bias import probe, scene_bias, write_scene_labels


def test_the_published_value_of_ucf101():
    assert scene_bias(0.597, 101) == pytest.approx(4.09, abs=0.01)
    assert scene_bias(1 / 8, 8) == pytest.approx(0) and scene_bias(0, 8) == -math.inf


def test_probe_finds_what_is_linear_and_nothing_else():
    rng = np.random.default_rng(0)

    def features(informative):
        labels = rng.integers(4, size=400)
        x = rng.normal(size=(400, 12)).astype(np.float32)
        x[:, :4] += 4 * informative * np.eye(4)[labels]
        names = tuple(str(n) for n in range(400))
        return FrameFeatures(names, labels, ("a", "b", "c", "d"), x, x)

    clear, noise = (probe(features(k), features(k)) for k in (1, 0))
    assert clear.accuracy > 0.95 and clear.bias > math.log(3.8) and clear.chance == 0.25
    assert abs(noise.accuracy - 0.25) < 0.1


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("motions")
    (folder,) = write_motions(MotionsConfig(out=root / "videos", test=16, splits=("iid",), workers=1)).values()
    convert(ConvertConfig(source=folder, out=root / "iid", codec="vp9", short_side=64, workers=1))
    return root / "iid"


def test_frames_of_shards_and_scene_labels(tmp_path, data):
    def mean_colour(frames):
        assert frames.shape[1:] == (3, 1, 32, 32)
        colour = frames.mean((2, 3, 4))
        return colour, 10 * colour

    look = FrameModel(mean_colour, 32, (0, 0, 0), (1, 1, 1))
    found = frame_features(data, look, frames=3, device="cpu", batch_size=5)
    assert found.features.shape == (16, 3) and found.classes == tuple(sorted(CLASSES)) and (found.features > 0).all()
    np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
    once = frame_features(data, look, frames=1, device="cpu")
    assert abs(once.features - found.features).max() < 0.2  # the scene stands still

    config = SceneLabelConfig(data=data, out=tmp_path / "scenes.npz", places=tmp_path, frames=3, device="cpu")
    with np.load(write_scene_labels(config, look)) as file:
        assert file["keys"].tolist() == list(found.keys)
        np.testing.assert_allclose(file["probabilities"], found.probabilities, atol=1e-6)


def test_places_weights(tmp_path):
    torch.manual_seed(0)
    model = zoo.resnet18(num_classes=365)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"arch": "resnet18", "state_dict": state}, tmp_path / "places.pth.tar")
    look = places365(tmp_path / "places.pth.tar", "cpu")
    frames = torch.randn(2, 3, 1, 64, 64)
    with torch.no_grad():
        features, logits = look.network(frames)
        torch.testing.assert_close(logits, model.eval()(frames[:, :, 0]))
    assert features.shape == (2, 512)
    (tmp_path / "other.pth").write_bytes(b"no weights")
    with pytest.raises(InputError, match="not the weights of a ResNet"):
        places365(tmp_path / "other.pth", "cpu")
    with pytest.raises(InputError, match="either --places or --run"):
        SceneBiasConfig(train=tmp_path, test=tmp_path)
