"""Operations of a training step, counted on the meta device."""

import pytest
import torch
from torch import nn

from unstill.trainer.methods import Albar, Baseline, Sdn, TwoStreams
from unstill.trainer.models.registry import build_model
from unstill.trainer.monitoring.flops import peak_flops, step_flops


class OneLinear(nn.Module):
    """2 * 96 * 5 operations a forward; the same again for each of the two gradients that its backward may need."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(96, 5)

    def forward(self, x):
        return self.head(x.flatten(1))


def test_one_layer_by_hand():
    product = 2 * 96 * 5
    assert step_flops(OneLinear(), Baseline(), 2, 4) == 2 * product  # forward, weight gradient
    assert step_flops(OneLinear(), Albar(w_gp=0), 2, 4) == 4 * product  # the same for the static clip


@pytest.mark.slow
def test_a_lazy_penalty_costs_its_share_and_the_published_one_three_times_cross_entropy():
    with torch.device("meta"):
        net = build_model("r3d_18", 400)
    plain, adversarial = (step_flops(net, method, 16, 112) for method in (Baseline(), Albar(w_gp=0)))
    full, lazy = (step_flops(net, Albar(gp_every=k), 16, 112) for k in (1, 4))
    assert adversarial == pytest.approx(2 * plain)
    assert full / plain == pytest.approx(3.06, abs=0.01)
    assert lazy == pytest.approx((full + 3 * adversarial) / 4)
    assert plain == pytest.approx(2 * 40.7e9 * 2.97, rel=0.01)  # forward and backward of 40.7 GMAC


def test_a_method_with_layers_or_a_network_of_its_own_is_counted():
    net, width, scenes = OneLinear(), 96, 3
    product, tables = 2 * width * 5, {"scene": torch.zeros(1, scenes)}
    classifier = Sdn(layers=0).module(net, "head", tables)
    # its classifier: forward, and the gradients of weight and input; the network's features are its clips
    found = step_flops(net, Sdn(layers=0), 2, 4, head="head", method_module=classifier, tables=tables)
    assert found == 2 * product + 2 * 2 * width * scenes
    painted = step_flops(net, Sdn(layers=0, w_mask=1.0), 2, 4, head="head", method_module=classifier, tables=tables)
    assert painted == found + 2 * product
    two = TwoStreams(w_hsic=1.0)
    found = step_flops(net, two, 2, 4, head="head", method_module=two.module(net, "head", {}))
    assert found == pytest.approx(4 * product, rel=1e-2)  # and HSIC's few products


def test_peaks_are_found_by_name():
    assert peak_flops("NVIDIA H100 NVL") == 835e12 and peak_flops("NVIDIA H100 80GB HBM3") == 989e12
    assert peak_flops("Some new device") is None
