"""Two streams: the sum of its terms, and which network each of them trains."""

import pytest
import torch
import torch.nn.functional as F
from synthetic_run import layer_norm_net

from unstill.pipeline.errors import InputError
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import TwoStreams
from unstill.trainer.methods.hsic import hsic

B, C, K = 6, 4, 3


@pytest.fixture
def batch():
    g = torch.Generator().manual_seed(1)
    motion = torch.randn(B, 3, 4, 8, 8, generator=g, dtype=torch.float64)
    static = motion[:, :, 2:3].expand_as(motion).contiguous()
    return motion, static, torch.arange(B) % C


def build(method, tables=None):
    torch.manual_seed(0)
    net = layer_norm_net(C).double()
    method_module = method.module(net, "head", tables or {}).double()
    torch.nn.init.normal_(method_module["biased"].head.weight)  # so that the two differ
    return net, method_module, LossModule(net, method, head="head", method_module=method_module)


def features(net, clips):
    seen = []
    hook = net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    z = net(clips)
    hook.remove()
    return z, seen[0]


def test_loss_is_the_sum_of_its_terms(batch):
    motion, static, target = batch
    net, method_module, module = build(TwoStreams(w_hsic=0.7))
    loss, terms = module(motion, static, target, False, {})
    (z, f), (zb, fb) = features(net, motion), features(method_module["biased"], static)
    expected = F.cross_entropy(z, target) + F.cross_entropy(zb, target) + 0.7 * hsic(f, fb)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(terms["hsic"], hsic(f, fb).detach())


@pytest.mark.parametrize("into", ["unbiased", "both"])
def test_whom_the_dependence_trains(batch, into):
    gradients = []
    for weight in (0.0, 1.0):
        _, method_module, module = build(TwoStreams(w_hsic=weight, hsic_into=into))
        module(*batch, False, {})[0].backward()
        gradients.append((module.model.conv1.weight.grad, method_module["biased"].conv1.weight.grad))
    assert not torch.equal(gradients[0][0], gradients[1][0])
    assert torch.equal(gradients[0][1], gradients[1][1]) == (into == "unbiased")


def test_scene_terms_and_static_labels(batch):
    motion, static, target = batch
    scene = torch.eye(K, dtype=torch.float64)[torch.arange(B) % K]
    method = TwoStreams(w_hsic=0, w_scene=0.5, alpha=0.0)
    net, method_module, module = build(method, {"scene": scene})
    other = (target + 1) % C
    loss, _ = module(motion, static, target, False, {"scene": scene, "static_target": other})
    (z, _), (zb, fb) = features(net, motion), features(method_module["biased"], static)
    scene_ce = F.cross_entropy(method_module["head"]["biased"](fb), scene)
    torch.testing.assert_close(loss, F.cross_entropy(z, target) + F.cross_entropy(zb, other) + 0.5 * scene_ce)
    with pytest.raises(InputError, match=r"method\.alpha"):
        TwoStreams(alpha=1.0)
    with pytest.raises(InputError, match="hsic_into"):
        TwoStreams(hsic_into="none")


@pytest.mark.slow
def test_compiled_equals_eager(batch):
    gradients = []
    for backend in (None, "aot_eager"):
        _, _, module = build(TwoStreams())
        if backend:
            torch._dynamo.reset()
            module.compile(fullgraph=True, dynamic=False, backend=backend)
        module(*batch, False, {})[0].backward()
        gradients.append([p.grad.clone() for p in module.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-9, atol=1e-12)
