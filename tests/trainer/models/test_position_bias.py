"""Swin's position bias, looked up whole, is torchvision's to the bit, and so are its gradients of gradients."""

import copy

import pytest
import torch
from torchvision.models.video.swin_transformer import SwinTransformer3d

from unstill.trainer.models.position_bias import add_up, look_up, look_up_position_biases

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
@pytest.mark.parametrize("compiled", [False, True])
def test_logits_and_penalty_gradients_are_those_of_torchvision(compiled, penalty_gradients):
    torch.manual_seed(0)
    plain = SwinTransformer3d([2, 4, 4], 8, [2], [2], [8, 7, 7], stochastic_depth_prob=0.0, num_classes=3).double()
    ours = copy.deepcopy(plain)
    assert look_up_position_biases(ours) == 2 and look_up_position_biases(ours) == 0
    assert list(ours.state_dict()) == list(plain.state_dict())
    motion = torch.randn(1, 3, 4, 40, 20, dtype=torch.float64)  # windows of fewer frames than the table has
    assert torch.equal(ours(motion), plain(motion))
    expected = penalty_gradients(plain, motion, torch.tensor([2]), False)
    found = penalty_gradients(ours, motion, torch.tensor([2]), compiled)
    for a, b in zip(expected, found, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-10, atol=1e-14)


def test_the_two_ops_are_each_others_gradient():
    table = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([3, 0, 3, 1, 1])
    gradient = torch.randn(2, 5, dtype=torch.float64, requires_grad=True)
    assert torch.equal(look_up(table, index), table[index].t())
    torch.library.opcheck(look_up, (table, index))
    torch.library.opcheck(add_up, (gradient, index, 4))
    assert torch.autograd.gradgradcheck(lambda t: look_up(t, index), table)
    assert torch.autograd.gradgradcheck(lambda g: add_up(g, index, 4), gradient)
