import pytest
import torch
import torch._dynamo
from kernel_checks import MEAN, STD, check_boundary, clip_inputs, loss_inputs, same_bits
from kernel_grid import first
from torch.autograd import forward_ad

from unstill.kernels import clip_prep, static_losses, step_boundary, weighted_loss
from unstill.kernels.static_losses import row_loss

OP = torch.ops.unstill.step_boundary.default


@pytest.mark.parametrize(
    "options",
    first(
        1,
        [
            dict(dtype=torch.bfloat16, channels_last=True, static="full", joint=True),
            dict(soft=True, smoothing=0.1, static="full"),
            dict(),
            dict(dtype=torch.float16, smoothing=0.1, channels_last=True, static="none"),
            dict(classes=1500),
        ],
    ),
    ids=lambda options: "-".join(map(str, options)) or "default",
)
def test_equal_to_the_two_apart_to_the_bit(form, options):
    apart = (form.clip_prep, form.static_losses, form.static_losses_backward, row_loss)
    check_boundary(form.step_boundary, *apart, form.device, **options)


@pytest.fixture
def arguments(device):
    logits, target, ce_weight, negent_weight = loss_inputs(4, 6, 2, torch.float64, False, device)
    frames, top, left, flip, t_idx = clip_inputs((2, 3, 10, 12), (6, 8), device)
    crop = dict(mean=MEAN, std=STD, size=(6, 8), top=top, left=left, flip=flip, t_idx=t_idx, static="frame")
    ce_weight, negent_weight = ce_weight.double(), negent_weight.double()
    return logits.requires_grad_(), target, 2, ce_weight, negent_weight, frames, crop


@pytest.mark.parametrize("scale", [1.0, 0.25, -3.0])
def test_loss_and_gradient_equal_the_separate_path(arguments, scale):
    *losses, frames, crop = arguments
    logits, target, n_motion, ce_weight, negent_weight = losses
    fused = step_boundary(*losses, frames, **crop, label_smoothing=0.1)
    ce, negent, lse = static_losses(logits, target, n_motion, 0.1)
    loss = weighted_loss(ce, negent, ce_weight, negent_weight)
    assert torch.equal(fused.loss, loss) and torch.equal(fused.ce, ce) and torch.equal(fused.lse, lse)
    assert not (fused.ce.requires_grad or fused.negent.requires_grad or fused.lse.requires_grad)
    gradients = [torch.autograd.grad(scale * value, logits)[0] for value in (fused.loss, loss)]
    if scale == 1:
        assert torch.equal(*gradients)
    torch.testing.assert_close(*gradients, rtol=1e-13, atol=1e-16)
    motion, still = clip_prep(frames, **crop)
    assert torch.equal(fused.motion, motion) and torch.equal(fused.static, still)


def test_gradcheck_and_opcheck(arguments):
    *losses, frames, crop = arguments
    assert torch.autograd.gradcheck(lambda z: step_boundary(z, *losses[1:], frames, **crop).loss, losses[0])
    index = [crop[k] for k in ("top", "left", "flip", "t_idx")]
    logits, weights = losses[0].detach().float().requires_grad_(), [w.float() for w in losses[3:]]
    clips = (frames, *index, [6, 8], MEAN, STD, torch.bfloat16, True, "full", False)
    torch.library.opcheck(OP, (logits, *losses[1:3], *weights, 0.1, -100, *clips))


def test_forward_mode_and_second_derivative_raise(arguments):
    logits, *losses, frames, crop = arguments
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        step_boundary(forward_ad.make_dual(logits, torch.ones_like(logits)), *losses, frames, **crop)
    with pytest.raises(NotImplementedError, match="forward-mode"):
        torch.func.jvp(lambda z: step_boundary(z, *losses, frames, **crop).loss, (logits.detach(),), (logits.detach(),))
    (first,) = torch.autograd.grad(step_boundary(logits, *losses, frames, **crop).loss, logits, create_graph=True)
    assert not first.requires_grad


@pytest.mark.slow
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiles_beside_a_double_backward_encoder(arguments, device):
    _, target, n_motion, ce_weight, negent_weight, frames, crop = arguments
    torch.manual_seed(0)
    encoder = torch.nn.Sequential(torch.nn.Linear(7, 8), torch.nn.Tanh(), torch.nn.Linear(8, 6)).to(device).double()
    clips = torch.randn(2, 7, device=device).double()
    static = clips.clone().requires_grad_()

    def separate(clips, static, logits):
        ce, negent, _ = static_losses(logits, target, n_motion)
        return weighted_loss(ce, negent, ce_weight, negent_weight), *clip_prep(frames, **crop)

    def fused(clips, static, logits):
        boundary = step_boundary(logits, target, n_motion, ce_weight, negent_weight, frames, **crop)
        return boundary.loss, boundary.motion, boundary.static

    results = []
    for losses in (separate, fused):

        def step(clips, static, losses=losses):
            motion_logits, static_logits = encoder(clips), encoder(static)
            (slope,) = torch.autograd.grad(static_logits.sum(), static, create_graph=True)
            loss, *following = losses(clips, static, torch.cat((motion_logits, static_logits)))
            return loss + slope.norm(dim=1).mean(), *following

        for function in (step, torch.compile(step, backend="aot_eager", fullgraph=True)):
            encoder.zero_grad()
            loss, *following = function(clips, static)
            loss.backward()
            results.append((torch.cat([p.grad.flatten() for p in encoder.parameters()]), *following))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wrong_weights_are_refused(arguments):
    logits, target, n_motion, ce_weight, negent_weight, frames, crop = arguments
    for weights, message in (
        ((ce_weight[:2], negent_weight), r"ce_weight must be \(4,\)"),
        ((ce_weight, negent_weight.float()), "negent_weight must be"),
        ((ce_weight.clone().requires_grad_(), negent_weight), "detach"),
    ):
        with pytest.raises(ValueError, match=message):
            step_boundary(logits, target, n_motion, *weights, frames, **crop)
    meta = frames.to("meta")
    with pytest.raises(ValueError, match="the frames are on meta"):
        step_boundary(logits, target, n_motion, ce_weight.detach(), negent_weight, meta, mean=MEAN, std=STD)


# ------------------------------------------------------------------------------------------------- on a GPU only


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("classes", [400, 100_000])
def test_training_size_repeats_and_captures(classes, channels_last):
    logits, target, ce_weight, negent_weight = loss_inputs(64, classes, 32, torch.bfloat16, False, "cuda")
    frames, *index = clip_inputs((8, 16, 128, 170), (112, 112), "cuda")
    options = (0.1, -100)
    clip_options = ([112, 112], MEAN, STD, torch.bfloat16, channels_last, "full", False)

    def run():
        return OP(logits, target, 32, ce_weight, negent_weight, *options, frames, *index, *clip_options)

    first = run()
    ce, negent, lse, stats = torch.ops.unstill.static_losses(logits, target, 32, *options)
    gradient = torch.ops.unstill.static_losses_backward(
        ce_weight, negent_weight, logits, target, negent, stats, 32, *options
    )
    clips = torch.ops.unstill.clip_prep(frames, *index, *clip_options)
    apart = (row_loss(ce, negent, ce_weight, negent_weight), ce, negent, lse, gradient, *clips)
    assert all(same_bits(a, b) for a, b in zip(first, apart, strict=True))
    for _ in range(100):
        assert all(same_bits(a, b) for a, b in zip(first, run(), strict=True))
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph.replay()
    assert all(same_bits(a, b) for a, b in zip(first, captured, strict=True))
