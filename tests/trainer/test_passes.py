"""Motion and static clips one after another, the static ones in parts: the gradients of one backward of the sum."""

import copy

import pytest
import synthetic_run
import torch
from torch import nn

from unstill.pipeline.errors import InputError
from unstill.trainer.batch import Batch
from unstill.trainer.known_failures import refuse_static_parts
from unstill.trainer.loss_module import LossModule
from unstill.trainer.methods import Albar, Baseline, Sdn, TwoStreams
from unstill.trainer.passes import backward_in_passes, static_leaf, step_passes
from unstill.trainer.step_config import StepConfig

pytestmark = pytest.mark.usefixtures("one_thread")

B, C, K = 4, 4, 3
ALBAR = {"w_adv": 0.5, "w_ent": 2.0, "w_gp": 3.0}


def clips(dtype=torch.float64) -> Batch:
    g = torch.Generator().manual_seed(3)
    motion = torch.randn(B, 3, 4, 8, 8, generator=g, dtype=torch.float64).to(dtype)
    scene = torch.eye(K, dtype=dtype)[torch.arange(B) % K]
    per_sample = {"scene": scene, "static_target": torch.arange(B).flip(0)}
    return Batch(motion, motion[:, :, 2:3], torch.arange(B), None, per_sample)


def module_for(net, method):
    torch.manual_seed(1)
    own = method.module(net, "head", {"scene": torch.zeros(1, K)})
    return LossModule(net, method, head="head", method_module=None if own is None else own.to(net.head.weight.dtype))


def results(module, loss, terms):
    return [loss, terms, [p.grad for p in module.parameters()], list(module.buffers())]


def one_backward(net, method, batch):
    """Both losses, then one backward of their sum: what the order must not change."""
    module = module_for(copy.deepcopy(net), method)
    torch.manual_seed(7)
    loss, terms = module(batch.motion, static_leaf(batch, True), batch.target, True, batch.per_sample)
    loss.backward()
    return results(module, loss.detach(), terms)


def in_passes(net, method, batch, static_parts=1, backend=None):
    module = module_for(copy.deepcopy(net), method)
    if backend:
        torch._dynamo.reset()
        torch._dynamo.config.trace_autograd_ops = True
        module.compile(fullgraph=True, dynamic=False, backend=backend)
    torch.manual_seed(7)
    passes = step_passes(method, B, True, static_parts=static_parts)
    return results(module, *backward_in_passes(module, batch, passes, parameters=list(module.parameters())))


METHODS = {
    "albar": Albar(**ALBAR),
    "albar, per sample": Albar(**ALBAR, gp_norm="per_sample", label_smoothing=0.1),
    "on sdn": Albar(**ALBAR, base=Sdn(hidden=8, layers=1)),
    "on two streams": Albar(**ALBAR, base=TwoStreams()),
}


WAYS = [(1, None), (2, None), (4, None), (1, "aot_eager"), (2, "aot_eager")]


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize(("static_parts", "backend"), WAYS)
def test_gradients_are_those_of_one_backward(method, static_parts, backend):
    torch.manual_seed(0)
    net = synthetic_run.layer_norm_net(C).double()
    expected, found = one_backward(net, method, clips()), in_passes(net, method, clips(), static_parts, backend)
    torch.testing.assert_close(found[0], expected[0], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1], expected[1], rtol=1e-7, atol=1e-12)  # shares are float32
    scale = max(float(g.abs().max()) for g in expected[2])
    for gradient, reference in zip(found[2], expected[2], strict=True):
        torch.testing.assert_close(gradient, reference, rtol=0, atol=1e-12 * scale)


def test_one_part_draws_what_one_backward_draws_and_is_equal_to_the_bit():
    torch.manual_seed(0)
    net = synthetic_run.dropout_net(C)  # dropout, and batch norm: its statistics see motion, then static clips
    expected, found = (run(net, Albar(**ALBAR), clips(torch.float32)) for run in (one_backward, in_passes))
    assert all(torch.equal(a, b) for a, b in zip(found[2] + found[3], expected[2] + expected[3], strict=True))


def test_parts_are_of_one_size_and_gradients_travel_with_the_last():
    albar = Albar()
    passes = step_passes(albar, 6, True, static_parts=4)  # rounded up to 6
    assert [p.kind for p in passes] == ["motion"] + ["static"] * 6 and {p.share for p in passes[1:]} == {1 / 6}
    assert [p.last for p in passes] == [False] * 6 + [True]
    assert [p.rows for p in step_passes(albar, 6, True, static_parts=3)][1:] == [slice(0, 2), slice(2, 4), slice(4, 6)]
    assert [p.penalise for p in step_passes(albar, 2, True)] == [False, True]  # one graph for the motion clips
    assert not any(p.last for p in step_passes(albar, 6, True, last=False))
    for method in (Baseline(), TwoStreams(), Albar(forward="joint")):
        assert [(p.kind, p.penalise) for p in step_passes(method, 6, True, static_parts=3)] == [("all", True)]
    assert [p.static for p in step_passes(albar, 2, True)] == [False, True]
    assert [p.static for p in step_passes(Albar(base=TwoStreams()), 2, True)] == [True, True]
    assert [step_passes(method, 2, True)[0].static for method in (Baseline(), TwoStreams())] == [False, True]


def test_parts_that_would_change_the_numbers_are_refused():
    norm = nn.Sequential(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    with pytest.raises(InputError, match=r"static_parts 2: model mine: 1 is a batch norm.*--step\.static-parts 1"):
        refuse_static_parts(norm, Albar(), 2, "mine")
    with pytest.raises(InputError, match="no pass for static clips alone"):
        refuse_static_parts(nn.Conv3d(3, 4, 1), Albar(forward="joint"), 2, "mine")
    dropping = nn.Sequential(nn.Conv3d(3, 4, 1), nn.Dropout3d(0.1))
    with pytest.raises(InputError, match="model mine: 1 draws random numbers for the batch"):
        refuse_static_parts(dropping, Albar(), 2, "mine")
    for parts in (0, 1):
        refuse_static_parts(norm, Albar(), parts, "mine")
    with pytest.raises(InputError, match=r"step\.static_parts is -1"):
        StepConfig(static_parts=-1)
    with pytest.raises(InputError, match=r"step\.static_parts 2 adds up"):
        StepConfig(static_parts=2, compile="reduce-overhead")
