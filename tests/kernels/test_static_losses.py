import importlib

import pytest
import torch
import torch._dynamo
from kernel_checks import (
    check_loss_policy,
    check_losses,
    check_strided_losses,
    check_weighted_losses,
    loss_inputs,
    same_bits,
)
from kernel_grid import every_pair, first
from torch.autograd import forward_ad

from unstill.kernels import static_losses, weighted_loss, weighted_losses
from unstill.kernels.static_losses import row_loss

OP = torch.ops.unstill.static_losses.default
BACKWARD = torch.ops.unstill.static_losses_backward.default
WEIGHTED = torch.ops.unstill.weighted_losses.default
WEIGHTED_BACKWARD = torch.ops.unstill.weighted_losses_backward.default
TARGETS = [(False, 0.0), (False, 0.1), (True, 0.0), (True, 0.1)]


@pytest.mark.parametrize(
    "target, dtype, classes",
    every_pair(TARGETS, [torch.float32, torch.bfloat16, torch.float16], [11, 400, 1001, 2]),
    ids=str,
)
def test_equals_the_float64_reference(form, target, dtype, classes):
    soft, smoothing = target
    check_losses(
        *(form.static_losses, form.static_losses_backward, form.device),
        **dict(classes=classes, dtype=dtype, soft=soft, smoothing=smoothing),
    )


@pytest.mark.parametrize("soft", first(1, [False, True]))
def test_several_tiles_per_row(form, soft):
    options = dict(classes=5003, dtype=torch.bfloat16, soft=soft, smoothing=0.1)
    check_losses(form.static_losses, form.static_losses_backward, form.device, rows=2, n_motion=1, **options)


@pytest.mark.parametrize("classes", first(0, [100_000]))  # on a GPU test_training_size has as many
def test_a_hundred_thousand_classes(form, classes):
    check_losses(form.static_losses, form.static_losses_backward, form.device, rows=1, n_motion=1, classes=classes)


@pytest.mark.parametrize("rows, n_motion", [(1, 1), (1, 0), (5, 5), (5, 1)])
def test_numbers_of_motion_and_static_rows(form, rows, n_motion):
    check_losses(form.static_losses, form.static_losses_backward, form.device, rows=rows, n_motion=n_motion)


def test_large_logits_keep_the_digits_of_small_losses(form):
    check_losses(form.static_losses, form.static_losses_backward, form.device, classes=9, scale=1e4, smoothing=0.1)
    check_losses(form.static_losses, form.static_losses_backward, form.device, scale=1e4, soft=True)


def test_ignored_label_inside_the_range(form):
    check_losses(form.static_losses, form.static_losses_backward, form.device, classes=9, ignore=3, smoothing=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("classes, soft", first(1, [(11, False), (70, True), (1500, False)]))
def test_policy_for_nan_infinity_and_wrong_labels(form, classes, soft):
    check_loss_policy(form.static_losses, form.static_losses_backward, form.device, classes, soft)


@pytest.mark.parametrize(
    "options", first(1, [dict(dtype=torch.bfloat16), dict(soft=True, smoothing=0.1), dict(classes=1500)]), ids=str
)
def test_weights_in_the_kernel_give_the_bits_of_weights_outside(form, options):
    apart = (form.static_losses, form.static_losses_backward, row_loss)
    check_weighted_losses(form.weighted_losses, form.weighted_losses_backward, *apart, form.device, **options)


def test_strided_arguments(form):
    check_strided_losses(form.static_losses, form.static_losses_backward, form.device)


def test_offsets_beyond_two_gib(device):
    """The last row more than 2**31 elements from the first, at a stride that fits 32 bits."""
    module = importlib.import_module("unstill.kernels.static_losses.triton_form")
    logits, target, g_ce, g_negent = loss_inputs(3, 7, 3, torch.bfloat16, False, device)
    apart = 2**30 + 64
    # the memory between the rows is never touched, so on a CPU it is never committed
    far = torch.empty(2 * apart + 7, dtype=torch.bfloat16, device=device).as_strided((3, 7), (apart, 1)).copy_(logits)
    results = []
    for z in (far, logits):
        out = module.static_losses_triton(z, target, 3, 0.0, -100)
        gradient = module.static_losses_backward_triton(g_ce, g_negent, z, target, out[1], out[3], 3, 0.0, -100)
        results.append((*out, gradient))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


# ------------------------------------------------------------------------------------------------- autograd


@pytest.mark.parametrize("soft, smoothing", TARGETS)
def test_gradcheck(device, soft, smoothing):
    logits, target, _, _ = loss_inputs(5, 6, 3, torch.float64, soft, device)
    if not soft:
        target[1] = -100
    assert torch.autograd.gradcheck(lambda z: static_losses(z, target, 3, smoothing)[:2], logits.requires_grad_())


@pytest.mark.parametrize("soft", [False, True])
def test_opcheck(device, soft):
    logits, target, g_ce, g_negent = loss_inputs(5, 6, 3, torch.float32, soft, device)
    _, negent, _, stats = OP(logits, target, 3, 0.1, -100)
    torch.library.opcheck(OP, (logits.requires_grad_(), target, 3, 0.1, -100))
    torch.library.opcheck(BACKWARD, (g_ce, g_negent, logits.detach(), target, negent, stats, 3, 0.1, -100))


def test_sums_and_means_backpropagate_through_the_public_function(device):
    logits, target, _, _ = loss_inputs(6, 5, 3, torch.float64, False, device)
    ours, theirs = (logits.clone().requires_grad_() for _ in range(2))
    ce, negent, lse = static_losses(ours, target, 3)
    assert not lse.requires_grad
    (ce[:3].mean() - 0.3 * ce[3:].mean() + 4.25 * negent[3:].mean() + ce.sum()).backward()
    log_p = theirs.log_softmax(1)
    expected = -log_p.gather(1, torch.cat((target, target))[:, None])[:, 0]
    entropy = (log_p.exp() * log_p).sum(1)
    (expected[:3].mean() - 0.3 * expected[3:].mean() + 4.25 * entropy[3:].mean() + expected.sum()).backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-12, atol=1e-14)


def test_weighted_loss_switches_off_what_has_no_weight(device):
    ce, negent = torch.tensor([1.0, float("nan")], device=device), torch.tensor([float("inf"), 2.0], device=device)
    ce_weight, negent_weight = torch.tensor([2.0, 0.0], device=device), torch.tensor([0.0, 3.0], device=device)
    ce.requires_grad_(), negent.requires_grad_()
    loss = weighted_loss(ce, negent, ce_weight, negent_weight)
    loss.backward()
    assert loss.item() == 8 and torch.equal(ce.grad, ce_weight) and torch.equal(negent.grad, negent_weight)


def test_weighted_losses_gradcheck_and_opcheck(device):
    logits, target, ce_weight, negent_weight = loss_inputs(5, 6, 3, torch.float64, False, device)
    target[1], ce_weight[4] = -100, 0
    weights = (ce_weight.double(), negent_weight.double())
    loss = lambda z: weighted_losses(z, target, 3, *weights, 0.1)[0]  # noqa: E731
    assert torch.autograd.gradcheck(loss, logits.requires_grad_())
    (gradient,) = torch.autograd.grad(loss(logits), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        gradient.sum().backward()
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(loss, (logits.detach(),), (logits.detach(),))
    with pytest.raises(ValueError, match=r"weighted_losses: ce_weight must be \(5,\) torch.float64"):
        weighted_losses(logits, target, 3, ce_weight[:4], negent_weight)
    single = (logits.detach().float().requires_grad_(), target, 3, ce_weight, negent_weight, 0.1, -100)
    torch.library.opcheck(WEIGHTED, single)
    rows, _, negent, _, stats = WEIGHTED(*single)
    assert rows.requires_grad and not (negent.requires_grad or stats.requires_grad)
    arguments = (torch.ones_like(rows), ce_weight, negent_weight, single[0].detach(), target, negent, stats)
    torch.library.opcheck(WEIGHTED_BACKWARD, (*arguments, 3, 0.1, -100))


def test_forward_mode_raises_instead_of_giving_zero(device):
    logits, target, _, _ = loss_inputs(4, 5, 2, torch.float32, False, device)
    loss = lambda z: static_losses(z, target, 2)[0]  # noqa: E731
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(loss, (logits,), (torch.ones_like(logits),))
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        loss(forward_ad.make_dual(logits, torch.ones_like(logits)))
    compiled = torch.compile(lambda z, t: torch.func.jvp(loss, (z,), (t,))[1], backend="aot_eager", fullgraph=True)
    with pytest.raises(Exception, match=r"forward-mode|Observed exception"):
        compiled(logits, torch.ones_like(logits))


def test_second_derivative_raises(device):
    logits, target, _, _ = loss_inputs(4, 5, 2, torch.float32, False, device)
    logits.requires_grad_()
    (first,) = torch.autograd.grad(static_losses(logits, target, 2)[0].square().sum(), logits, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        first.sum().backward()


@pytest.mark.slow
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiles_beside_a_double_backward_encoder(device):
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 5)).to(device).double()
    clips, target = torch.randn(4, 6, device=device).double(), torch.tensor([0, 4, 2, 1], device=device)
    static = clips.clone().requires_grad_()

    def loss_of(clips, static):
        motion_logits, static_logits = encoder(clips), encoder(static)
        (slope,) = torch.autograd.grad(static_logits.sum(), static, create_graph=True)
        ce, negent, _ = static_losses(torch.cat((motion_logits, static_logits)), target, 4, 0.1)
        return ce[:4].mean() - 0.3 * ce[4:].mean() + 4.25 * negent[4:].mean() + slope.norm(dim=1).mean()

    gradients = []
    for function in (loss_of, torch.compile(loss_of, backend="aot_eager", fullgraph=True)):
        encoder.zero_grad()
        function(clips, static).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in encoder.parameters()]))
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-14)


# ------------------------------------------------------------------------------------------------- arguments

LOGITS, LABELS = torch.zeros(4, 5), torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(logits=LOGITS.long()), "floating point"),
        (dict(logits=LOGITS[0]), r"must be \(R, C\)"),
        (dict(logits=LOGITS[:, :1]), "C >= 2"),
        (dict(n_motion=5), r"n_motion must be in \[0, 4\]"),
        (dict(label_smoothing=1.5), "label_smoothing"),
        (dict(target=LABELS[:1]), r"a target of shape \(2,\)"),
        (dict(n_motion=3), r"a target of shape \(3,\)"),
        (dict(target=torch.zeros(2, 4)), r"a target of shape \(2, 5\)"),
        (dict(target=LABELS.bool()), "labels or distributions"),
        (dict(target=torch.zeros(2, 5, requires_grad=True)), "detach"),
        (dict(target=torch.zeros(2, dtype=torch.int64, device="meta")), "the target is on meta"),
        (dict(target=torch.tensor([0, 5]), validate=True), r"labels must be in \[0, 5\), got \[5\]"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, message):
    arguments = dict(logits=LOGITS, target=LABELS, n_motion=2) | change
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        static_losses(**arguments)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- on a GPU only


@pytest.mark.gpu
@pytest.mark.parametrize("soft, smoothing", TARGETS)
@pytest.mark.parametrize("rows, classes", [(64, 400), (64, 100_000)])
def test_training_size(rows, classes, soft, smoothing):
    options = dict(rows=rows, n_motion=rows // 2, classes=classes, soft=soft, smoothing=smoothing, dtype=torch.bfloat16)
    check_losses(OP, BACKWARD, "cuda", **options)


@pytest.mark.gpu
def test_a_hundred_launches_are_equal():
    logits, target, g_ce, g_negent = loss_inputs(512, 1001, 256, torch.bfloat16, False, "cuda")

    def run():
        out = OP(logits, target, 256, 0.1, -100)
        return *out, BACKWARD(g_ce, g_negent, logits, target, out[1], out[3], 256, 0.1, -100)

    first = run()
    for _ in range(100):
        assert all(same_bits(a, b) for a, b in zip(first, run(), strict=True))


@pytest.mark.gpu
def test_does_not_wait_for_the_device_and_captures_in_a_cuda_graph():
    logits, target, g_ce, g_negent = loss_inputs(64, 400, 32, torch.bfloat16, False, "cuda")
    target[3] = 400
    g_rows = torch.full((1,), 0.5, device="cuda").expand(64)

    def run():
        out = OP(logits, target, 32, 0.0, -100)
        yield from (*out, BACKWARD(g_ce, g_negent, logits, target, out[1], out[3], 32, 0.0, -100))
        rows, *out = WEIGHTED(logits, target, 32, g_ce, g_negent, 0.0, -100)
        yield from (rows, *out)
        yield WEIGHTED_BACKWARD(g_rows, g_ce, g_negent, logits, target, out[1], out[3], 32, 0.0, -100)

    list(run())  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = list(run())
    finally:
        torch.cuda.set_sync_debug_mode("default")
    logits.mul_(0.5)
    graph.replay()
    assert all(same_bits(a, b) for a, b in zip(captured, run(), strict=True))
