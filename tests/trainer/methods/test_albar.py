"""The ALBAR objective against plain formulas, in float64."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from unstill.pipeline.errors import InputError
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline

B, C, T, H, W = 3, 5, 2, 4, 6


class Smooth(nn.Module):
    """Infinitely differentiable, so that finite differences converge."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(3, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, C)

    def forward(self, x):
        return self.head(torch.tanh(self.norm(self.conv(x))).mean((2, 3, 4)))


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(0)
    motion = torch.randn(B, 3, T, H, W, generator=g, dtype=torch.float64)
    static = motion[:, :, 1:2].expand_as(motion).contiguous().requires_grad_(True)
    return motion, static, torch.tensor([0, 3, 4])


def smooth_net():
    torch.manual_seed(1)
    return Smooth().double()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("soft", [False, True])
def test_terms_are_those_of_the_paper(batch, smoothing, soft):
    motion, static, label = batch
    net, method = smooth_net(), Albar(w_adv=0.7, w_ent=2.5, w_gp=0.3, label_smoothing=smoothing)
    target = torch.softmax(torch.randn(B, C, dtype=torch.float64), 1) if soft else label
    loss, terms = LossModule(net, method)(motion, static, target, True)

    z, zs = net(motion), net(static)
    p = zs.softmax(1)
    entropy = -(p * p.log()).sum(1).mean()
    ce = F.cross_entropy(z, target, label_smoothing=smoothing)
    static_ce = F.cross_entropy(zs, target, label_smoothing=smoothing)
    (g,) = torch.autograd.grad(zs.sum(), static)
    norm = g.square().sum((1, 2, 3)).sqrt().mean()
    torch.testing.assert_close(terms["ce"], ce.detach())
    torch.testing.assert_close(terms["static_ce"], static_ce.detach())
    torch.testing.assert_close(terms["static_entropy"], entropy.detach())
    torch.testing.assert_close(terms["gp"], norm, rtol=1e-9, atol=0)
    torch.testing.assert_close(loss, ce - 0.7 * static_ce - 2.5 * entropy + 0.3 * norm, rtol=1e-9, atol=0)


@pytest.mark.parametrize("gp_norm", ["per_sample", "per_column"])
def test_penalty_of_a_linear_network_by_hand(batch, gp_norm):
    # logits = A x + b, so d sum(logits) / dx is the sum of A's rows, the same for every clip
    _, static, label = batch
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * T * H * W, C)).double()
    loss, terms = LossModule(net, Albar(w_adv=0, w_ent=0, w_gp=1, gp_norm=gp_norm))(
        static.detach(), static, label, True
    )
    row = net[1].weight.sum(0).view(3, T, H, W)
    norms = row.square().sum().sqrt() if gp_norm == "per_sample" else row.square().sum((0, 1, 2)).sqrt()
    torch.testing.assert_close(terms["gp"], norms.mean().detach(), rtol=1e-9, atol=0)
    got = torch.autograd.grad(loss - terms["ce"], net[1].weight, retain_graph=True)[0]
    ce_part = torch.autograd.grad(F.cross_entropy(net(static.detach()), label), net[1].weight)[0]
    by_hand = torch.autograd.grad(norms.mean(), net[1].weight)[0]
    torch.testing.assert_close(got - ce_part, by_hand, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("gp_scalar", ["logits_sum", "true_logit", "log_prob"])
def test_penalty_gradient_is_that_of_central_differences(batch, gp_scalar):
    _, static, label = batch
    net, method = smooth_net(), Albar(gp_norm="per_sample", gp_scalar=gp_scalar)

    def penalty():
        return method.penalty(net(static), static, label)

    parameters = list(net.parameters())
    analytic = torch.cat([g.flatten() for g in torch.autograd.grad(penalty(), parameters, materialize_grads=True)])
    direction = torch.randn(analytic.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    flat = nn.utils.parameters_to_vector(parameters).detach()
    values = []
    for eps in (1e-5, -1e-5):
        nn.utils.vector_to_parameters(flat + eps * direction, parameters)
        values.append(penalty().item())
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(float(analytic @ direction), rel=1e-6)


def test_one_joined_forward_equals_two_without_batch_statistics(batch):
    grads = []
    for forward in ("two", "joint"):
        net = smooth_net()
        loss, _ = LossModule(net, Albar(forward=forward))(*batch, True)
        loss.backward()
        grads.append(nn.utils.parameters_to_vector([p.grad for p in net.parameters()]))
    torch.testing.assert_close(*grads, rtol=1e-10, atol=1e-13)


def test_lazy_penalty_is_k_times_as_strong_on_its_steps(batch):
    net, every = smooth_net(), Albar(w_gp=0.5, gp_every=4)
    assert [every.penalises(step) for step in range(6)] == [True, False, False, False, True, False]
    with_penalty, terms = LossModule(net, every)(*batch, True)
    without, other = LossModule(net, every)(*batch, False)
    torch.testing.assert_close(with_penalty - without, 4 * 0.5 * terms["gp"])
    assert "gp" not in other
    assert not any(Albar(w_gp=0).penalises(step) for step in range(8))


def test_extreme_logits_and_a_zero_input_gradient_stay_finite(batch):
    motion, static, label = batch

    class Constant(nn.Module):
        def __init__(self):
            super().__init__()
            self.bias = nn.Parameter(torch.tensor([1e4, -1e4, 0, 0, 0], dtype=torch.float64))

        def forward(self, x):
            return self.bias + 0 * x.mean((1, 2, 3, 4))[:, None]

    net = Constant()
    loss, terms = LossModule(net, Albar())(motion, static, label, True)
    loss.backward()
    assert net.bias.grad.isfinite().all() and terms["static_entropy"] == 0
    assert terms["gp"] == pytest.approx(1e-6)  # the eps inside the root


def test_watched_shares():
    class Fixed(nn.Module):
        def forward(self, x):
            return torch.tensor([[9.0, 0, 0], [0, 9, 0], [0.1, 0, 0], [9, 0, 0]])

    clips, label = torch.zeros(4, 3, 1, 2, 2), torch.tensor([0, 0, 1, 1])
    _, terms = LossModule(Fixed(), Albar())(clips, clips, label, False)
    assert terms["top1"] == 0.25 and terms["static_top1"] == 0.25
    assert terms["static_flip"] == 0.5  # two are wrong and sure of it, one is wrong but has no idea
    _, terms = LossModule(Fixed(), Baseline())(clips, None, label, False)
    assert set(terms) == {"ce", "top1"}


def test_static_entropy_of_a_uniform_answer_is_ln_classes(batch):
    class Uniform(nn.Module):
        def forward(self, x):
            return x.new_zeros(len(x), C)

    motion, static, label = batch
    _, terms = LossModule(Uniform(), Albar())(motion, static, label, False)
    assert float(terms["static_entropy"]) == pytest.approx(math.log(C))


@pytest.mark.parametrize("wrong", [{"gp_norm": "l2"}, {"gp_scalar": "loss"}, {"forward": "three"}, {"gp_every": 0}])
def test_unknown_options_are_refused(wrong):
    with pytest.raises(InputError, match=f"method.{next(iter(wrong))}"):
        Albar(**wrong)
