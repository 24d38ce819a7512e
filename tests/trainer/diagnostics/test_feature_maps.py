"""Which layers are compared, and that their mean outputs are the means of what the layers give."""

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.pipeline.errors import InputError
from unstill.trainer.diagnostics.feature_maps import pooled, stages
from unstill.trainer.models.motion_cnn import MotionCNN
from unstill.trainer.models.registry import build_model


def test_one_layer_of_each_size():
    clips = torch.randn(1, 3, 8, 32, 32)
    assert stages(MotionCNN(4), clips) == ["features.2", "features.5", "features.8", "features", "penultimate"]
    swin = SwinTransformer3d([2, 4, 4], 8, [1, 1, 1], [2, 2, 2], [2, 4, 4], num_classes=3).eval()
    assert stages(swin, clips) == ["features.0", "features.2", "norm", "penultimate"]
    assert stages(build_model("r3d_18", 3).eval(), clips) == ["layer1", "layer2", "layer3", "layer4", "penultimate"]


@pytest.mark.parametrize("name", ["motion_cnn", "swin", "r3d_18", "s3d"])
def test_the_head_gets_the_penultimate(name):
    torch.manual_seed(0)
    clips = torch.randn(2, 3, 16, 64, 64) if name == "s3d" else torch.randn(2, 3, 8, 32, 32)
    if name == "swin":
        model = SwinTransformer3d([2, 4, 4], 8, [1, 1], [2, 2], [2, 4, 4], num_classes=3).eval()
        head = model.head
    else:
        model = build_model(name, 3).eval()
        head = {"motion_cnn": "head", "r3d_18": "fc", "s3d": "classifier.1"}[name]
        head = model.get_submodule(head)
    found = pooled(model, clips, ["penultimate", "logits"])
    with torch.no_grad():
        torch.testing.assert_close(found["logits"], model(clips))
        weight = head.weight.flatten(1)  # s3d's head is a convolution of one place
        torch.testing.assert_close(found["penultimate"] @ weight.T + head.bias, found["logits"], rtol=1e-3, atol=1e-4)


def test_means_over_time_and_space_of_both_layouts():
    swin = SwinTransformer3d([2, 4, 4], 8, [1, 1], [2, 2], [2, 4, 4], num_classes=3).eval()
    clips, seen = torch.randn(2, 3, 4, 32, 32), []
    swin.features[0].register_forward_hook(lambda _m, _i, output: seen.append(output))
    found = pooled(swin, clips, ["features.0"])["features.0"]
    torch.testing.assert_close(found, seen[0].mean((1, 2, 3)))
    assert found.shape == (2, 8)
    cnn = MotionCNN(4)
    assert pooled(cnn, clips, ["features.5"])["features.5"].shape == (2, 24)


def test_refusals():
    with pytest.raises(InputError, match=r"'features\.99'.*features\.0"):
        pooled(MotionCNN(4), torch.randn(1, 3, 8, 32, 32), ["features.99"])
    with pytest.raises(InputError, match="no linear layer"):
        pooled(nn.Sequential(nn.ReLU(), nn.Flatten()), torch.randn(1, 3, 2, 4, 4), ["penultimate"])
