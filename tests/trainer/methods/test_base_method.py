"""Losses that go together: ALBAR on top of SDN and of two streams, and consistency with the clean clip under any."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synthetic_run import layer_norm_net

from unstill.pipeline.errors import InputError
from unstill.trainer.augmentations import BackgroundErasing
from unstill.trainer.augmentations.base import Context
from unstill.trainer.batch import Batch
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline, Sdn, TwoStreams

B, C, K = 6, 4, 3
ALBAR = {"w_adv": 0.5, "w_ent": 2.0, "w_gp": 3.0, "gp_norm": "per_sample"}
OTHERS = {"sdn": Sdn(alpha=0.7, w_mask=0.5, hidden=8, layers=1), "two streams": TwoStreams(w_hsic=0.7)}


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(1)
    motion = torch.randn(B, 3, 4, 8, 8, generator=g, dtype=torch.float64)
    static = motion[:, :, 2:3].expand_as(motion).contiguous()
    scene = torch.eye(K, dtype=torch.float64)[torch.arange(B) % K]
    people = torch.zeros(B, 1, 4, 8, 8, dtype=torch.uint8)
    people[..., 2:6, 2:6] = 1
    return motion, static, torch.arange(B) % C, {"scene": scene, "people": people}


def gradients(method, batch, backend=None):
    motion, static, target, per_sample = batch
    torch.manual_seed(0)
    net = layer_norm_net(C).double()
    method_module = method.module(net, "head", {"scene": per_sample["scene"]})
    module = LossModule(
        net, method, head="head", method_module=None if method_module is None else method_module.double()
    )
    if backend:
        torch._dynamo.reset()
        torch._dynamo.config.trace_autograd_ops = True
        module.compile(fullgraph=True, dynamic=False, backend=backend)
    static = static.clone().requires_grad_(method.twice_differentiable)
    loss, terms = module(motion, static, target, method.twice_differentiable, per_sample)
    loss.backward()
    return loss.detach(), terms, {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("other", OTHERS)
def test_albar_on_a_base_method_is_the_sum_of_both(batch, other):
    # ALBAR alone holds the cross entropy that the other method brings as well
    loss, terms, found = gradients(Albar(**ALBAR, base=OTHERS[other]), batch)
    albar, alone, theirs = (gradients(m, batch) for m in (Albar(**ALBAR), Baseline(), OTHERS[other]))
    torch.testing.assert_close(loss, albar[0] - alone[0] + theirs[0])
    for name, gradient in found.items():
        expected = theirs[2][name] + (albar[2][name] - alone[2][name] if name in albar[2] else 0)
        torch.testing.assert_close(gradient, expected, rtol=1e-8, atol=1e-10)
    assert set(terms) == set(albar[1]) | set(theirs[1])


@pytest.mark.slow
def test_compiled_equals_eager(batch):
    method = Albar(**ALBAR, base=OTHERS["sdn"])  # its reversal stands in a graph that is differentiated twice
    torch.testing.assert_close(
        gradients(method, batch)[2], gradients(method, batch, "aot_eager")[2], rtol=1e-9, atol=1e-12
    )


def test_a_base_method_makes_its_own_pass():
    with pytest.raises(InputError, match=r"method\.forward joint"):
        Albar(base=TwoStreams(), forward="joint")
    assert Albar(base=OTHERS["sdn"]).needs_people and not Albar(base=TwoStreams()).needs_people


def test_consistency_by_hand(batch):
    motion, static, target, _ = batch
    augmentation = BackgroundErasing(prob=1.0, consistency_weight=0.3)
    out = augmentation(Batch(motion, static, target, torch.zeros(B).long()), np.random.default_rng(0), Context(C))
    assert not BackgroundErasing()(
        Batch(motion, static, target, torch.zeros(B).long()), np.random.default_rng(0), Context(C)
    ).per_sample
    torch.manual_seed(0)
    net = layer_norm_net(C).double()
    z, clean = net(out.motion), net(motion)
    for method in (Baseline(), Albar(w_adv=0, w_ent=0, w_gp=0)):
        loss, terms = LossModule(net, method)(out.motion, static, target, False, out.per_sample)
        torch.testing.assert_close(terms["consistency"], (z - clean).square().mean().detach())
        torch.testing.assert_close(loss, F.cross_entropy(z, target) + 0.3 * (z - clean).square().mean())


@pytest.mark.parametrize("method", [*OTHERS.values(), Albar(**ALBAR, base=OTHERS["sdn"])])
def test_consistency_counts_once_under_every_method(batch, method):
    motion, static, target, per_sample = batch
    clean = {"clean": motion.flip(0), "clean_weight": torch.full((B,), 0.3, dtype=torch.float64)}
    plain, _, _ = gradients(method, batch)
    more, terms, _ = gradients(method, (motion, static, target, per_sample | clean))
    torch.testing.assert_close(more - plain, 0.3 * terms["consistency"])
