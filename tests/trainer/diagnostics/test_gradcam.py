"""Grad-CAM on networks whose evidence is known by construction."""

import pytest
import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.pipeline.errors import InputError
from unstill.trainer.diagnostics.feature_maps import last_map
from unstill.trainer.diagnostics.gradcam import foreground_energy, grad_cam


class Bright(nn.Module):
    """Logit 0 is the mean red, logit 1 the mean green: the evidence is where the colour is."""

    def __init__(self, inplace=False):
        super().__init__()
        self.conv = nn.Conv3d(3, 2, 1, bias=False)
        self.act = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(2, 2, bias=False)
        with torch.no_grad():
            self.conv.weight.copy_(torch.eye(2, 3).reshape(2, 3, 1, 1, 1))
            self.head.weight.copy_(torch.eye(2))

    def forward(self, x):
        return self.head(self.act(self.conv(x)).mean((2, 3, 4)))


class Tokens(nn.Module):
    """The same in the layout of video transformers: (B,t,h,w,K), with a norm that changes nothing here."""

    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(3, elementwise_affine=True)
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(3, 3, bias=False)
        nn.init.eye_(self.head.weight)

    def forward(self, x):
        x = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        return self.head(self.pool(x).flatten(1))


@pytest.fixture
def blob():
    clips = torch.zeros(2, 3, 4, 8, 8)
    clips[0, 0, 2, 1:4, 5:8] = 1  # red, in frame 2
    clips[1, 1, 1:3, 4:6, 0:2] = 2  # green, in frames 1 and 2
    return clips


@pytest.mark.parametrize(("side", "places"), [(2, (2, 2, 2)), (3, (2, 4, 4)), (5, (2, 8, 8))])
def test_tokens_of_a_video_transformer(side, places):
    """Widths 8, 16, 32 from stage to stage: whichever layer is chosen, its last axis is the channels."""
    model = SwinTransformer3d([2, 4, 4], 8, [1, 1, 1], [2, 2, 2], [2, 4, 4], num_classes=3).eval()
    clips = torch.randn(1, 3, 4, 32, 32)
    at = last_map(model, clips, side)
    shapes = []
    at.layer.register_forward_hook(lambda _m, _i, output: shapes.append(tuple(output.shape)))
    assert grad_cam(model, clips, torch.tensor([1]), at).shape == (1, 4, 32, 32)
    assert at.channels_last and shapes == [(1, *places, 8 * 8 // places[1])]


@pytest.mark.parametrize("inplace", [False, True])
def test_the_heat_is_where_and_when_the_evidence_is(blob, inplace):
    model = Bright(inplace).eval()
    at = last_map(model, blob)
    assert at.name == "act" and not at.channels_last
    heat = grad_cam(model, blob, torch.tensor([0, 1]), at)
    assert heat.shape == (2, 4, 8, 8) and (heat >= 0).all()
    expected = blob[torch.tensor([0, 1]), torch.tensor([0, 1])] / 256  # weight 1/positions
    torch.testing.assert_close(heat, expected)
    masks = (expected > 0).float()
    assert foreground_energy(heat, masks).tolist() == pytest.approx([1, 1])
    # no red in the second clip, so no evidence for red, which is not a number and not a zero
    heat = grad_cam(model, blob, torch.tensor([0, 0]), at)
    assert foreground_energy(heat, masks)[1].isnan()
    assert all(p.grad is None for p in model.parameters())


def test_token_layout(blob):
    model = Tokens().eval()
    at = last_map(model, blob)
    assert at.name == "norm" and at.channels_last
    heat = grad_cam(model, blob, torch.tensor([0, 1]), at)
    masks = (blob.amax(1) > 0).float()
    assert foreground_energy(heat, masks).tolist() == pytest.approx([1, 1])


def test_even_heat_gives_the_area_and_size_is_restored():
    heat, masks = torch.ones(1, 2, 4, 4), torch.zeros(1, 2, 4, 4)
    masks[:, :, :2] = 0.5
    assert foreground_energy(heat, masks).item() == pytest.approx(0.25)
    with pytest.raises(ValueError, match="one shape"):
        foreground_energy(heat, masks[:, :1])
    model = nn.Sequential(nn.Conv3d(3, 4, 3, (2, 4, 4), 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten())
    clips = torch.rand(3, 3, 8, 16, 16)
    assert grad_cam(model, clips, torch.tensor([0, 1, 2]), last_map(model, clips)).shape == (3, 8, 16, 16)
    deeper = nn.Sequential(nn.Conv3d(3, 4, 3, (1, 2, 2), 1), nn.ReLU(), *model)
    deeper[2] = nn.Conv3d(4, 4, 3, (2, 4, 4), 1)
    assert last_map(deeper, clips).name == "3" and last_map(deeper, clips, side=8).name == "1"


def test_a_model_without_a_map_is_refused():
    with pytest.raises(InputError, match="no layer gives a map"):
        last_map(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8, 2)), torch.zeros(1, 3, 2, 2, 2))


def test_a_linear_network_in_closed_form():
    """Heat of a 1x1x1 convolution and a linear head: ReLU(sum over k of head[c,k] * features[k]) / positions."""
    torch.manual_seed(0)
    conv, head = nn.Conv3d(3, 5, 1), nn.Linear(5, 4)
    model = nn.Sequential(conv, nn.AdaptiveAvgPool3d(1), nn.Flatten(), head).double()
    clips, target = torch.randn(3, 3, 2, 6, 6, dtype=torch.float64), torch.tensor([3, 1, 0])
    heat = grad_cam(model, clips, target, last_map(model, clips))
    evidence = torch.einsum("bk,bkthw->bthw", head.weight[target], conv(clips)) / 72
    torch.testing.assert_close(heat, evidence.relu().float().detach(), rtol=1e-4, atol=1e-6)
