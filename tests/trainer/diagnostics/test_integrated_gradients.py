"""Integrated gradients: closed forms, and the axiom that the attributions add up to the change of the logit."""

import torch
from torch import nn
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.trainer.diagnostics.integrated_gradients import integrated_gradients


class Linear(nn.Module):
    """Logits are weighted sums of all pixels."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3 * 2 * 5 * 5, dtype=torch.float64))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def clips(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_a_linear_network_in_closed_form():
    """weight * (x - x0), whatever the number of steps; the gradient of each clip is its own."""
    model, x, start = Linear(), clips(3, 3, 2, 5, 5), clips(3, 3, 2, 5, 5).flip(0)
    target = torch.tensor([2, 0, 2])
    found = integrated_gradients(model, x, start, target, steps=1)
    torch.testing.assert_close(found.pixels, model.weight[target].view_as(x) * (x - start))
    assert found.gap.abs().max() < 1e-12 and model.weight.grad is None
    torch.testing.assert_close(found.heat, found.pixels.sum(1).clamp(min=0))


def test_a_product_is_shared_equally():
    """f = a b from 0: each factor is given half, which the gradient at x (b, a) would not do."""

    class Product(nn.Module):
        def forward(self, x):
            return (x[:, 0, 0, 0, 0] * x[:, 0, 0, 0, 1])[:, None]

    x = torch.zeros(1, 3, 1, 1, 2, dtype=torch.float64)
    x[0, 0, 0, 0] = torch.tensor([2.0, 5.0])
    found = integrated_gradients(Product(), x, torch.zeros_like(x), torch.zeros(1, dtype=torch.int64), 3)
    torch.testing.assert_close(found.pixels[0, 0, 0, 0], torch.tensor([5.0, 5.0], dtype=torch.float64))


def test_completeness_of_a_video_transformer():
    """In float64 the gap falls with the square of the number of steps, to nothing against the change."""
    torch.manual_seed(0)
    model = SwinTransformer3d([2, 4, 4], 8, [1, 1], [2, 2], [2, 4, 4], num_classes=3).double().eval()
    x = clips(2, 3, 4, 32, 32)
    target = torch.tensor([0, 2])
    gaps = [integrated_gradients(model, x, torch.zeros_like(x), target, steps) for steps in (8, 64)]
    assert (gaps[1].gap.abs() < 0.05 * gaps[0].gap.abs() + 1e-9).all()
    assert (gaps[1].gap.abs() < 1e-3 * gaps[1].change.abs().max()).all()
