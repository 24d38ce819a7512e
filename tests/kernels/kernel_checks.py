"""float64 references of the kernels, and checks against them that take the implementation as an argument.

The same checks run on the plain torch form, on the Triton form (interpreted on a CPU, native on a GPU), and on the
broken kernels of test_mutations.py.
"""

import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
MEAN, STD = [0.43, 0.39, 0.35], [0.22, 0.21, 0.25]
NAN, INF = float("nan"), float("inf")


def same_bits(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.equal(a.isnan(), b.isnan()) and torch.equal(a.nan_to_num(7), b.nan_to_num(7))


def rounding(dtype: torch.dtype) -> float:
    """Relative error of rounding float32 to ``dtype`` once."""
    if dtype in (torch.float32, torch.float64):
        return 0.0
    # Triton's interpreter truncates to bfloat16 instead of rounding to nearest (a GPU-only test checks the rounding)
    return torch.finfo(dtype).eps * (1.0 if INTERPRETED and dtype == torch.bfloat16 else 0.5)


# ------------------------------------------------------------------------------------------------- clips


def clip_reference(frames: Tensor, top, left, flip, t_idx, size, dtype=torch.float64) -> tuple[Tensor, Tensor]:
    """(motion, static clip of T frames), clip by clip from the definition."""
    (h, w), (length, height, width) = size, frames.shape[1:4]
    mean, std = torch.tensor(MEAN, dtype=dtype), torch.tensor(STD, dtype=dtype)
    motion = []
    for i, clip in enumerate(frames.cpu()):
        y = 0 if top is None else min(max(int(top[i]), 0), height - h)
        x = 0 if left is None else min(max(int(left[i]), 0), width - w)
        crop = clip[:, y : y + h, x : x + w]
        if flip is not None and bool(flip[i]):
            crop = crop.flip(2)
        motion.append(((crop.to(dtype) / 255 - mean) / std).permute(3, 0, 1, 2))
    chosen = [0 if t_idx is None else min(max(int(t_idx[i]), 0), length - 1) for i in range(len(motion))]
    static = [m[:, t : t + 1].expand_as(m) for m, t in zip(motion, chosen, strict=True)]
    return torch.stack(motion), torch.stack(static)


def clip_inputs(shape: tuple[int, ...], size: tuple[int, int], device: str, seed: int = 0):
    """Random frames and, per clip, the crop's offsets, flip and frame number; the last clip has the largest of each."""
    draw = torch.Generator().manual_seed(seed)
    batch, length, height, width = shape
    frames = torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=draw)
    top = torch.randint(0, height - size[0] + 1, (batch,), generator=draw)
    left = torch.randint(0, width - size[1] + 1, (batch,), generator=draw)
    flip = torch.arange(batch) % 2 == 0
    t_idx = torch.randint(0, length, (batch,), generator=draw)
    top[-1], left[-1], t_idx[-1] = height - size[0], width - size[1], length - 1
    return [x.to(device) for x in (frames, top, left, flip, t_idx)]


def check_clips(op: Callable, device, shape, size, dtype, channels_last, static, joint=False, index=True, seed=0):
    """``op`` has the signature of ``clip_prep_op``."""
    frames, *indices = clip_inputs(shape, size, device, seed)
    if not index:
        indices = [None] * 4
    out, still = op(frames, *indices, list(size), MEAN, STD, dtype, channels_last, static, joint)
    batch, length = shape[:2]
    order = torch.channels_last_3d if channels_last else torch.contiguous_format
    expected, expected_static = clip_reference(frames, *indices, size)
    torch_error = (clip_reference(frames, *indices, size, torch.float32)[0].double() - expected).abs().max()

    def close(got: Tensor, want: Tensor) -> None:
        error = (got.cpu().double() - want).abs()
        # float32 is allowed twice torch's own error, which is not zero; a shorter type one rounding more
        assert (error <= 2 * torch_error + 2**-22 + rounding(dtype) * want.abs() * 1.001).all(), error.max()

    assert out.dtype == dtype and out.is_contiguous(memory_format=order)
    motion = out[:batch]
    assert motion.shape == (batch, 3, length, *size)
    close(motion, expected)
    if static == "none":
        assert out.shape[0] == batch and still.numel() == 0
        return
    if joint:
        assert out.shape[0] == 2 * batch and still.numel() == 0
        still = out[batch:]
    else:
        assert still.is_contiguous(memory_format=order)
    assert still.shape == (batch, 3, 1 if static == "frame" else length, *size)
    close(still, expected_static[:, :, : still.shape[2]])
    chosen = [0] * batch if indices[3] is None else indices[3].tolist()
    for i, t in enumerate(chosen):
        assert torch.equal(still[i], motion[i, :, t : t + 1].expand_as(still[i]))


def check_clamping(op: Callable, device: str):
    """Crops and frame numbers outside the clip count as the nearest inside."""
    frames, _, _, flip, _ = clip_inputs((2, 3, 10, 12), (6, 8), device)
    top, left, t_idx = (torch.tensor(v, device=device) for v in ([99, -3], [2**31 - 1, -(2**31)], [3, -1]))
    motion, still = op(frames, top, left, flip, t_idx, [6, 8], MEAN, STD, torch.float32, False, "frame", False)
    expected, expected_static = clip_reference(frames, top, left, flip, t_idx, (6, 8))
    torch.testing.assert_close(motion.cpu().double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(still.cpu().double(), expected_static[:, :, :1], rtol=0, atol=1e-6)


# ------------------------------------------------------------------------------------------------- losses


def loss_reference(z: Tensor, target: Tensor, n_motion: int, smoothing: float, ignore: int) -> tuple[Tensor, Tensor]:
    """Differentiable (ce, negent) of finite logits in their own precision, by torch's cross-entropy."""
    target = torch.cat((target[:n_motion], target[: len(z) - n_motion]))
    if target.is_floating_point():
        target = target.to(z.dtype)
    ce = F.cross_entropy(z, target, reduction="none", label_smoothing=smoothing, ignore_index=ignore)
    log_p = F.log_softmax(z, 1)
    return ce, (log_p.exp() * log_p).sum(1)


def loss_inputs(rows, classes, n_motion, dtype, soft, device, seed=0, scale=3.0):
    draw = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(rows, classes, generator=draw)).to(dtype)
    batch = max(n_motion, rows - n_motion)
    if soft:
        target = torch.rand(batch, classes, generator=draw)
        target = torch.where(torch.rand(batch, classes, generator=draw) < 0.3, 0.0, target) + 1e-3
        target *= 0.9 / target.sum(1, keepdim=True)  # not quite a distribution: the mass must not be taken for one
    else:
        target = torch.randint(0, classes, (batch,), generator=draw)
        target[0], target[-1] = classes - 1, 0
    weights = torch.randn(2, rows, generator=draw)
    # clones: in memory of their own, as on a GPU, since alignment decides what Triton compiles
    return [x.to(device) for x in (logits, target, *(w.clone() for w in weights))]


def check_losses(
    forward: Callable,
    backward: Callable,
    device: str,
    rows: int = 5,
    classes: int = 11,
    n_motion: int = 3,
    dtype: torch.dtype = torch.float32,
    soft: bool = False,
    smoothing: float = 0.0,
    ignore: int = -100,
    scale: float = 3.0,
):
    """``forward`` and ``backward`` have the signatures of ``static_losses_op`` and ``static_losses_backward_op``."""
    logits, target, g_ce, g_negent = loss_inputs(rows, classes, n_motion, dtype, soft, device, scale=scale)
    if not soft and len(target) > 1:
        target[1] = ignore
    ce, negent, lse, stats = forward(logits, target, n_motion, smoothing, ignore)
    gradient = backward(g_ce, g_negent, logits, target, negent, stats, n_motion, smoothing, ignore)
    assert ce.dtype == negent.dtype == lse.dtype == torch.float32
    assert gradient.dtype == dtype and gradient.shape == logits.shape

    def reference(precision):
        z = logits.detach().cpu().to(precision).requires_grad_()
        values = loss_reference(z, target.cpu(), n_motion, smoothing, ignore)
        total = sum((v * g.cpu().to(precision)).sum() for v, g in zip(values, (g_ce, g_negent), strict=True))
        return [v.detach().double() for v in (*values, z.logsumexp(1), torch.autograd.grad(total, z)[0])]

    exact, torch_result = reference(torch.float64), reference(torch.float32)
    names = ("ce", "negent", "lse", "gradient")
    for name, got, want, theirs in zip(names, (ce, negent, lse, gradient), exact, torch_result, strict=True):
        error = (got.cpu().double() - want).abs()
        # four times torch's own worst error: sums are added in another order, and exp on a GPU is an approximation;
        # the floor is one float32 rounding of the largest value, for when torch happens to be exact
        allowed = 4 * (theirs - want).abs().max() + 2**-23 * want.abs().max()
        allowed = allowed + (rounding(dtype) * want.abs() * 1.01 + 1e-7 if name == "gradient" else 0)
        assert (error <= allowed).all(), (name, error.max(), allowed.max())


def check_loss_policy(forward: Callable, backward: Callable, device: str, classes: int = 70, soft: bool = False):
    """Rows that are not ordinary numbers: what each gives, and that no other row notices."""
    ordinary, poisoned = [0, 1, 2], {"nan": 3, "+inf": 4, "all -inf": 5, "last nan": 6}
    logits, target, _, _ = loss_inputs(7, classes, 7, torch.float32, soft, device)
    clean = logits.clone()
    logits[poisoned["nan"], 1], logits[poisoned["last nan"], -1] = NAN, NAN
    logits[poisoned["+inf"], 2], logits[poisoned["all -inf"]] = INF, -INF
    if soft:
        target[1, 4] = 0
    else:
        target[1] = 2
    logits[1, 4] = clean[1, 4] = -INF  # an impossible class which is not the target
    ones = torch.ones(7, device=device)
    options = (7, 0.0, -100)

    def run(z, y, g_ce=ones, g_negent=ones):
        ce, negent, lse, stats = forward(z, y, *options)
        return ce, negent, lse, backward(g_ce, g_negent, z, y, negent, stats, *options)

    ce, negent, _, gradient = run(logits, target)
    untouched = run(clean, target)
    for got, want in zip((ce, negent, gradient), (untouched[0], untouched[1], untouched[3]), strict=True):
        assert torch.equal(got[ordinary], want[ordinary]) and got[ordinary].isfinite().all()
        assert got[list(poisoned.values())].isnan().all()
    z = clean[1].double().cpu()
    log_p = z[z > -INF].log_softmax(0)
    assert abs(negent[1].item() - (log_p.exp() * log_p).sum().item()) < 1e-5
    assert gradient[1, 4] == 0

    # a gradient of zero switches its term off, NaN included; the other term is as it was alone
    zeros = torch.zeros_like(ones)
    assert (run(logits, target, zeros, zeros)[3] == 0).all()
    both = run(clean, target)[3]
    alone = run(clean, target, ones, zeros)[3] + run(clean, target, zeros, ones)[3]
    torch.testing.assert_close(both, alone, rtol=1e-5, atol=1e-6)
    if soft:
        return
    labels = target.clone()
    labels[0], labels[1], labels[2] = -100, classes, -1
    ce, negent, _, gradient = run(clean, labels)
    assert ce[0] == 0 and ce[1:3].isnan().all() and ce[3:].isfinite().all() and negent.isfinite().all()
    assert gradient[1:3].isnan().all() and gradient[[0, *range(3, 7)]].isfinite().all()
    assert torch.equal(gradient[0], run(clean, target, zeros, ones)[3][0])  # its entropy still counts
    assert run(clean, labels, zeros, ones)[3].isfinite().all()
    # the target itself impossible: an infinite loss, not NaN
    labels[3] = 0
    clean[3, 0] = -INF
    ce, negent, _, gradient = run(clean, labels)
    assert ce[3] == INF and negent[3].isfinite() and gradient[3].isfinite().all()
    # uniform: as uncertain as can be
    labels[:] = 0
    ce, negent, lse, _ = run(torch.full_like(clean, 2.0), labels)
    log_c = torch.log(torch.tensor(float(classes)))
    torch.testing.assert_close(ce.cpu(), log_c.expand(7), rtol=1e-6, atol=0)
    torch.testing.assert_close(negent.cpu(), -log_c.expand(7), rtol=1e-6, atol=0)
    torch.testing.assert_close(lse.cpu(), 2 + log_c.expand(7), rtol=1e-6, atol=0)


def check_strided_losses(forward: Callable, backward: Callable, device: str):
    """Logits, targets and incoming gradients that are not contiguous."""
    logits, target, g_ce, g_negent = loss_inputs(4, 9, 2, torch.float32, False, device)
    wide = torch.zeros(4, 18, device=device)
    wide[:, ::2] = logits
    padded = torch.zeros(4, 11, device=device)[:, :9].copy_(logits)
    options = (2, 0.1, -100)
    want = forward(logits, target, *options)
    for view in (wide[:, ::2], padded, logits.T.contiguous().T):
        assert not view.is_contiguous()
        assert all(torch.equal(a, b) for a, b in zip(forward(view, target, *options), want, strict=True))
        gradients = [backward(g_ce, g_negent, z, target, want[1], want[3], *options) for z in (view, logits)]
        assert torch.equal(*gradients) and gradients[0].is_contiguous()
    # the gradient of a sum arrives with stride 0; so may a target
    one, ones = torch.ones(1, device=device).expand(4), torch.ones(4, device=device)
    for y in (target, target[:1].expand(2)):
        gradients = [backward(one, one, logits, y, want[1], want[3], *options)]
        gradients += [backward(ones, ones, logits, y.clone(), want[1], want[3], *options)]
        assert torch.equal(*gradients)


def check_weighted_losses(
    op: Callable, op_backward: Callable, losses: Callable, backward: Callable, weighted: Callable, device: str,
    classes=21, dtype=torch.float32, soft=False, smoothing=0.0,
):  # fmt: skip
    """``op`` and ``op_backward`` (signatures of the operators) equal the functions without weights to the bit."""
    rows, n_motion = 4, 2
    logits, target, ce_weight, negent_weight = loss_inputs(rows, classes, n_motion, dtype, soft, device)
    negent_weight[:n_motion] = 0
    ce_weight[-1] = 0
    logits[0, 0], logits[n_motion - 1, 1] = -INF, NAN
    if not soft:
        target[n_motion - 1] = classes  # a wrong label, in the last row without weight
    options = (n_motion, smoothing, -100)
    expected = losses(logits, target, *options)
    found, *others = op(logits, target, n_motion, ce_weight, negent_weight, *options[1:])
    assert same_bits(found, weighted(expected[0], expected[1], ce_weight, negent_weight)) and found[-1].isfinite()
    assert all(same_bits(a, b) for a, b in zip(others, expected, strict=True))
    strided = torch.tensor([[0.5, 7], [-2, 7], [0, 7], [INF, 7]], device=device)[:, 0]
    # the gradient of a sum arrives with stride 0; one that is infinite cannot switch on a term without weight
    for g in (torch.tensor([-0.25], device=device).expand(rows), strided):
        parts = [torch.where(w == 0, 0.0, w * g) for w in (ce_weight, negent_weight)]
        want = backward(*parts, logits, target, expected[1], expected[3], *options)
        got = op_backward(g, ce_weight, negent_weight, logits, target, others[1], others[3], *options)
        assert got.dtype == dtype and got.is_contiguous() and same_bits(got, want)
    assert got[2].eq(0).all() and got[n_motion - 1].isnan().all() and got[0].isfinite().all()


# ------------------------------------------------------------------------------------------------- both


def check_boundary(
    op: Callable, clips: Callable, losses: Callable, backward: Callable, weighted: Callable, device: str,
    classes=21, dtype=torch.float32, soft=False, smoothing=0.0, channels_last=False, static="frame", joint=False,
):  # fmt: skip
    """``op`` (the signature of ``step_boundary_op``) equals the separate functions to the bit."""
    rows, n_motion = 4, 2
    logits, target, ce_weight, negent_weight = loss_inputs(rows, classes, n_motion, dtype, soft, device)
    negent_weight[:n_motion] = 0
    ce_weight[-1] = 0
    logits[0, 0] = -INF
    logits[n_motion - 1, 1] = NAN
    if not soft:
        target[n_motion - 1] = classes  # a wrong label, in the last row without weight
    frames, *index = clip_inputs((2, 3, 20, 24), (12, 16), device)
    loss_options = (n_motion, smoothing, -100)
    clip_options = ([12, 16], MEAN, STD, dtype, channels_last, static, joint)
    row_losses, ce, negent, lse, gradient, motion, still = op(
        logits, target, n_motion, ce_weight, negent_weight, smoothing, -100, frames, *index, *clip_options
    )
    expected_ce, expected_negent, expected_lse, stats = losses(logits, target, *loss_options)
    expected_gradient = backward(ce_weight, negent_weight, logits, target, expected_negent, stats, *loss_options)
    expected_motion, expected_still = clips(frames, *index, *clip_options)
    assert same_bits(ce, expected_ce) and same_bits(negent, expected_negent) and same_bits(lse, expected_lse)
    assert same_bits(row_losses, weighted(expected_ce, expected_negent, ce_weight, negent_weight))
    assert same_bits(gradient, expected_gradient)
    assert torch.equal(motion, expected_motion) and motion.stride() == expected_motion.stride()
    assert torch.equal(still, expected_still) and still.stride() == expected_still.stride()
    poisoned = torch.arange(rows, device=device) == n_motion - 1
    assert torch.equal(row_losses.isnan(), poisoned) and torch.equal(gradient.isnan().all(1), poisoned)


# ------------------------------------------------------------------------------------------------- gelu


def gelu_products_reference(h: Tensor, p: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """z gelu'(h), z p gelu''(h) and p gelu'(h) in float64, from autograd's derivatives of gelu."""
    h = h.double().clone().requires_grad_()
    (slope,) = torch.autograd.grad(F.gelu(h).sum(), h, create_graph=True)
    (bend,) = torch.autograd.grad(slope.sum(), h)
    p, z, slope = p.double(), z.double(), slope.detach()
    return z * slope, z * p * bend, p * slope


def check_gelu_products(form: Callable, device: str, dtype: torch.dtype = torch.float32, elements: int = 4101) -> None:
    """``second_order`` against autograd: several blocks and an odd rest, from where gelu is zero to where it is linear,
    with results in place and apart, with and without the third.
    """
    tolerance = {torch.float64: 1e-14, torch.float32: 2e-6}.get(dtype) or 2 * torch.finfo(dtype).eps
    generator = torch.Generator().manual_seed(0)
    h = torch.linspace(-9, 9, elements, dtype=torch.float64).to(device, dtype)
    p, z = torch.randn(2, elements, generator=generator, dtype=torch.float64).to(device, dtype)
    expected = gelu_products_reference(h, p, z)
    for in_place, third in ((False, True), (True, True), (False, False)):
        ours, theirs = p.clone(), z.clone()
        unwritten = lambda: torch.full_like(h, NAN)  # noqa: E731
        first, by_p = (theirs, ours) if in_place else (unwritten(), unwritten())
        second, beyond = unwritten(), h.clone()
        form(beyond, ours, theirs, first=first, second=second, by_p=by_p if third else None, scratch=unwritten())
        assert torch.equal(beyond, h)
        for found, value in zip((first, second, by_p)[: 2 + third], expected, strict=False):
            torch.testing.assert_close(found.double(), value, rtol=tolerance, atol=tolerance / 10)


# ------------------------------------------------------------------------------------------------- attention


def attention_reference(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, regions: Tensor | None) -> Tensor:
    """Attention with whole matrices, in the precision of its inputs; the mask as torchvision's Swin adds it."""
    score = q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)
    if bias is not None:
        score = score + bias
    if regions is not None:
        own = regions.repeat(len(q) // len(regions), 1)
        score = score + ((own[:, :, None] != own[:, None, :]) * -100.0)[:, None].to(score.dtype)
    return score.softmax(-1) @ v


def attention_inputs(batch, heads, queries, keys, size, dtype, device, bias=False, windows=0, mean=0.0, seed=0):
    """q, k, v, dO, the cotangents a, b, c of dQ, dK, dV, the cotangent e of dB, bias, regions.

    ``mean``: size of what all tokens have in common, as in every trained network."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, dtype=torch.float64, generator=draw)

    def tokens(count):
        return (normal(batch, count, heads, size) + mean * normal(heads, size)).transpose(1, 2).to(device, dtype)

    q, a, do = (tokens(queries) for _ in range(3))
    k, v, b, c = (tokens(keys) for _ in range(4))
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    bias, e = (normal(heads, queries, keys).to(device, wide) if bias else None for _ in range(2))
    regions = torch.randint(0, 3, (windows, keys), generator=draw, dtype=torch.int8) if windows else None
    return q, k, v, do, a, b, c, e, bias, None if regions is None else regions.to(device)


ATTENTION_RESULTS = ("O", "dQ", "dK", "dV", "dB", "g_dO", "g_Q", "g_K", "g_V", "g_B")


def attention_derivatives(function: Callable, q, k, v, do, a, b, c, e, bias, regions) -> dict[str, Tensor]:
    """What autograd makes of ``function(q, k, v, bias, regions)``; without a bias, without dB and g_B."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v, do, *(() if bias is None else (bias,)))]
    with_bias = leaves[4:]
    out = function(*leaves[:3], *(with_bias or [None]), regions)
    first = torch.autograd.grad(out, [*leaves[:3], *with_bias], leaves[3], create_graph=True)
    cotangents = [x for x in (a, b, c, e) if x is not None]
    *second, of_do = torch.autograd.grad(
        first[: len(cotangents)], [*leaves[:3], *with_bias, leaves[3]], cotangents, allow_unused=True
    )
    first, second = list(first), list(second)
    if bias is None:
        first, second = [*first, None], [*second, None]
    values = dict(zip(ATTENTION_RESULTS, (out, *first, of_do, *second), strict=True))
    return {name: value.detach() for name, value in values.items() if value is not None}


def called_attention(forward: Callable, backward: Callable, double_backward: Callable, *inputs) -> dict[str, Tensor]:
    """The same from the three functions, which have the signatures of the operators."""
    q, k, v, do, a, b, c, e, bias, regions = inputs
    scale, need_bias = q.shape[-1] ** -0.5, bias is not None
    out, lse = forward(q, k, v, bias, regions, scale)
    *first, delta = backward(do, q, k, v, bias, regions, out, lse, scale, need_bias)
    second = double_backward(a, b, c, e, do, q, k, v, bias, regions, out, lse, delta, scale, need_bias)
    values = dict(zip(ATTENTION_RESULTS, (out, *first, *second), strict=True))
    return values if need_bias else {name: x for name, x in values.items() if name not in ("dB", "g_B")}


# largest relative error (Frobenius norms), 1.5 to 8 times the measured one
ATTENTION_ERROR = {torch.float64: 5e-15, torch.float32: 1e-6, torch.float16: 6e-4, torch.bfloat16: 5e-3}


def check_attention(forms: tuple[Callable, Callable, Callable], device: str, *shape, dtype=torch.float64, **options):
    """Each result against float64 math attention. ``shape``: B, H, M, N, d; ``cotangent=False``: e is None."""
    cotangent, allowed = options.pop("cotangent", True), options.pop("allowed", ATTENTION_ERROR[dtype])
    q, k, v, do, a, b, c, e, bias, regions = attention_inputs(*shape, dtype, device, **options)
    inputs = (q, k, v, do, a, b, c, e if cotangent else None, bias, regions)
    found = called_attention(*forms, *inputs)
    exact = [x.double() if x is not None and x.is_floating_point() else x for x in inputs]
    expected = attention_derivatives(attention_reference, *exact)
    assert found.keys() == expected.keys()
    for name, want in expected.items():
        got = found[name]
        assert got.dtype == (bias.dtype if name in ("dB", "g_B") else dtype) and got.shape == want.shape
        if want.dim() == 4:
            assert got.transpose(1, 2).is_contiguous(), name
        error = ((got.double() - want).norm() / want.norm()).item()
        assert error <= allowed, (name, error)


def check_strided_attention(forms: tuple[Callable, Callable, Callable], device: str):
    """Packed, expanded and reversed arguments give what their copies give."""
    batch, heads, tokens, size = 2, 2, 5, 4
    dtype = torch.float64 if device == "cpu" else torch.bfloat16  # a GPU's kernels are for 16-bit types
    q, k, v, do, a, b, c, e, bias, regions = attention_inputs(
        batch, heads, tokens, tokens, size, dtype, device, bias=True, windows=1
    )
    packed = torch.stack((q, k, v)).permute(1, 3, 0, 2, 4).contiguous()  # (B, N, 3, H, d), as a linear layer makes it
    q, k, v = (part.transpose(1, 2) for part in packed.unbind(2))
    v, b = v[:1].expand_as(v), b[:1].expand_as(b)
    c = torch.stack((c, c), -1)[..., 0]
    do, a = do[:, :, :1].expand_as(do), a[..., :1].expand_as(a)
    bias = bias.transpose(1, 2).contiguous().transpose(1, 2)
    e = e[:1].expand_as(e)
    inputs = (q, k, v, do, a, b, c, e, bias, regions)
    found = called_attention(*forms, *inputs)
    expected = called_attention(*forms, *(x.contiguous() for x in inputs))
    for name, want in expected.items():
        if dtype == torch.float64:
            torch.testing.assert_close(found[name], want, rtol=1e-13, atol=1e-14, msg=name)
        else:  # other strides may be other layouts of threads, which sum in another order
            error = ((found[name] - want).double().norm() / want.double().norm()).item()
            assert error <= ATTENTION_ERROR[dtype], (name, error)
