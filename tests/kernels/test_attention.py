import importlib

import pytest
import torch
import torch._dynamo
from kernel_checks import (
    attention_derivatives,
    attention_inputs,
    attention_reference,
    check_attention,
    check_strided_attention,
    same_bits,
)
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.video import swin_transformer

from unstill.kernels import attention
from unstill.kernels.attention.costs import PASSES, launch_costs

OPS = [
    getattr(torch.ops.unstill, name).default
    for name in ("attention", "attention_backward", "attention_double_backward")
]
SHAPES = {
    "several tiles": dict(shape=(2, 2, 70, 70, 16), bias=True, windows=2),
    "windows in turn, no cotangent of dB": dict(shape=(4, 1, 7, 7, 20), bias=True, windows=2, cotangent=False),
    "fewer queries than keys, large head": dict(shape=(1, 2, 5, 33, 72)),
    "one query": dict(shape=(1, 1, 1, 3, 3), bias=True),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_equals_the_float64_reference(form, name):
    options = dict(SHAPES[name])
    dtype = torch.float64 if form.device == "cpu" else torch.bfloat16  # a GPU's kernels are for 16-bit types
    check_attention(form.attention, form.device, *options.pop("shape"), dtype=dtype, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_shorter_types_lose_their_rounding_only(form, dtype):
    if form.device != "cpu" and dtype == torch.float32:
        pytest.skip("a GPU's kernels are for 16-bit types")
    check_attention(form.attention, form.device, 1, 2, 37, 37, 32, dtype=dtype, bias=True, windows=1)


def test_a_common_mean_of_the_tokens_costs_little_precision(form):
    # math attention in bfloat16 with float32 scores: 0.13
    check_attention(
        form.attention, form.device, 1, 1, 33, 70, 16, dtype=torch.bfloat16, bias=True, mean=6.0, allowed=0.036
    )


def test_bias_gradients_sum_over_split_windows(form, monkeypatch):
    for module in form.modules.values():
        if hasattr(module, "ATTENTION_PROGRAMS"):
            monkeypatch.setattr(module, "ATTENTION_PROGRAMS", 2)  # two splits of three windows
    dtype = torch.float64 if form.device == "cpu" else torch.bfloat16
    check_attention(form.attention, form.device, 3, 1, 5, 5, 16, dtype=dtype, bias=True)


def test_strided_arguments(form):
    check_strided_attention(form.attention, form.device)


@pytest.mark.parametrize("dtype, size", [(torch.float64, 16), (torch.float32, 16), (torch.bfloat16, 200)], ids=str)
def test_what_the_kernels_are_not_made_for_runs_as_torch_on_a_gpu(dtype, size):
    """Triton 3.6 and 3.8 cannot compile float64 ("Currently fp64 don't support largeK MMA"). Tensors without data, said
    to be there: a kernel's launch would fail."""
    operators = importlib.import_module("unstill.kernels.attention.operators")
    with FakeTensorMode():
        q, k, v, do, a, b, c = (torch.empty(2, 3, 5, size, dtype=dtype, device="cuda") for _ in range(7))
        bias, regions = torch.empty(3, 5, 5, device="cuda"), torch.empty(2, 5, dtype=torch.int8, device="cuda")
        out, lse = operators._attention_cuda(q, k, v, bias, regions, 0.5)
        *first, delta = operators._backward_cuda(do, q, k, v, bias, regions, None, None, 0.5, True)
        arguments = (a, b, c, None, do, q, k, v, bias, regions, None, None, None, 0.5, True)
        second = operators._double_backward_cuda(*arguments)
    assert [x.shape for x in (out, *first[:3], *second[:4])] == [q.shape] * 8
    assert first[3].shape == second[4].shape == bias.shape and lse.numel() == delta.numel() == 0


@pytest.mark.parametrize("limit", [1, 5 * 9 * 8, 2 * 5 * 9 * 8, 3 * 2 * 5 * 9 * 8])
def test_chunks_of_rows_heads_and_windows(monkeypatch, limit):
    module = importlib.import_module("unstill.kernels.attention.torch_form")
    monkeypatch.setitem(module.CHUNK_BYTES, "cpu", limit)
    forms = (module.attention_torch, module.attention_backward_torch, module.attention_double_backward_torch)
    check_attention(forms, "cpu", 4, 2, 5, 9, 3, bias=True)
    check_attention(forms, "cpu", 4, 2, 9, 9, 3, bias=True, windows=2)
    q, k = torch.empty(4, 2, 5, 3), torch.empty(4, 2, 9, 3)
    covered = torch.zeros(4, 2, 5)
    for chunk in module.chunks(q.double(), k.double()):
        for rows in chunk.blocks:
            part = covered[chunk.windows, chunk.heads, rows]
            part += 1
            assert part.numel() * 9 * 8 <= limit or part.numel() == 1
    assert (covered == 1).all()


# ------------------------------------------------------------------------------------------------- autograd


def small(bias=True, windows=2):
    """Everything but the cotangents, float64, requiring gradients."""
    q, k, v, do, *_, bias, regions = attention_inputs(2, 1, 4, 4, 3, torch.float64, "cpu", bias=bias, windows=windows)
    return [x.requires_grad_() for x in (q, k, v) + ((bias,) if bias is not None else ())], do, regions


@pytest.mark.parametrize("bias, windows", [(True, 2), (True, 0), (False, 0)])
def test_gradcheck_and_gradgradcheck(bias, windows):
    leaves, _, regions = small(bias, windows)

    def function(q, k, v, bias=None):
        return attention(q, k, v, bias=bias, regions=regions, scale=0.7)

    assert torch.autograd.gradcheck(function, leaves)
    assert torch.autograd.gradgradcheck(function, leaves)


def test_opcheck():
    (q, k, v, bias), do, regions = small()
    torch.library.opcheck(OPS[0], (q, k, v, bias, regions, 0.5))
    backward = (do.requires_grad_(), q, k, v, bias, regions, None, None, 0.5, True)
    torch.library.opcheck(OPS[1], backward)
    double = (q, k, v, bias, do, q, k, v, bias, regions, None, None, None, 0.5, True)
    torch.library.opcheck(OPS[2], [x.detach() if isinstance(x, torch.Tensor) else x for x in double])


def test_every_derivative_through_the_public_function(device):
    inputs = attention_inputs(4, 2, 9, 9, 5, torch.float64, "cpu", bias=True, windows=2)

    def function(q, k, v, bias, regions):
        return attention(q, k, v, bias=bias, regions=regions)

    found = attention_derivatives(function, *inputs)
    for name, want in attention_derivatives(attention_reference, *inputs).items():
        torch.testing.assert_close(found[name], want, rtol=1e-12, atol=1e-14, msg=name)


def penalty_of(layer, x, weight, bias, regions):
    """A network of one attention, its loss and the penalty on its gradient by ``x``, (B, N, C)."""
    packed = (x @ weight).view(*x.shape[:2], 3, 2, -1)
    q, k, v = (part.transpose(1, 2) for part in packed.unbind(2))
    logits = layer(q, k, v, bias * 2, regions).transpose(1, 2).flatten(2).square().sum()
    (slope,) = torch.autograd.grad(logits, x, create_graph=True)
    return logits + slope.norm()


def penalty_case():
    draw = torch.Generator().manual_seed(0)
    shapes = ((4, 6, 5), (5, 3 * 2 * 4), (2, 6, 6))
    leaves = [torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_() for shape in shapes]
    return leaves, torch.randint(0, 3, (2, 6), dtype=torch.int8, generator=draw)


def ours(q, k, v, bias, regions):
    return attention(q, k, v, bias=bias, regions=regions)


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
@torch._dynamo.config.patch(trace_autograd_ops=True)
def test_compiled_gradient_of_a_gradient_equals_eager(backend):
    leaves, regions = penalty_case()
    expected = torch.autograd.grad(penalty_of(attention_reference, *leaves, regions), leaves)
    torch.testing.assert_close(
        torch.autograd.grad(penalty_of(ours, *leaves, regions), leaves), expected, rtol=1e-12, atol=1e-13
    )
    compiled = torch.compile(penalty_of, backend=backend, fullgraph=True)
    found = torch.autograd.grad(compiled(ours, *leaves, regions), leaves)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
    """``need_bias`` of every derivative that is computed."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func in OPS[1:]:
            self.calls.append(args[-1])
        return func(*args, **kwargs or {})


def test_the_inner_gradient_computes_no_bias_gradient():
    leaves, regions = penalty_case()
    with Recorder() as recorder:
        loss = penalty_of(ours, *leaves, regions)
        assert recorder.calls == [False]
        loss.backward()
    assert recorder.calls == [False, True, True]


def test_graph_keeps_no_matrix_of_scores():
    q, k, v = (torch.randn(1, 1, 64, 2, dtype=torch.float64).requires_grad_() for _ in range(3))
    kept = []

    def pack(tensor):
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = attention(q, k, v)
        torch.autograd.grad(out, (q, k, v), torch.randn_like(out), create_graph=True)
    assert kept and max(tensor.numel() for tensor in kept) == q.numel()


def test_operations_are_counted():
    shape, product = (3, 2, 8, 4), 2 * 3 * 2 * 8 * 8 * 4
    q, k, v = (torch.randn(shape, requires_grad=True, device="meta") for _ in range(3))
    do = torch.randn(shape, requires_grad=True, device="meta")
    with FlopCounterMode(display=False) as counter:
        out = attention(q, k, v)
        assert counter.get_total_flops() == 2 * product
        first = torch.autograd.grad(out, (q, k, v), do, create_graph=True)
        assert counter.get_total_flops() == 7 * product
        torch.autograd.grad(first, (q, k, v, do), (q, k, v))
        assert counter.get_total_flops() == 19 * product


@pytest.mark.parametrize("size", [16, 72])
def test_costs_count_the_products_that_the_kernels_make(monkeypatch, device, size):
    if device != "cpu":
        pytest.skip("counted in the interpreter")
    from triton.runtime.interpreter import InterpreterBuilder

    module, made = importlib.import_module("unstill.kernels.attention.triton_form"), []
    monkeypatch.setattr(module, "run", lambda launches, tensor: made.extend(launches))
    real, calls = InterpreterBuilder.create_dot, []
    monkeypatch.setattr(InterpreterBuilder, "create_dot", lambda *args: calls.append(1) or real(*args))
    q, k, v, do, a, b, c, e, bias, _ = attention_inputs(1, 1, 3, 3, size, torch.float64, "cpu", bias=True)
    out, lse = module.attention_triton(q, k, v, bias, None, 1.0)
    delta = module.attention_backward_triton(do, q, k, v, bias, None, out, lse, 1.0, True)[4]
    module.attention_double_backward_triton(a, b, c, e, do, q, k, v, bias, None, out, lse, delta, 1.0, True)
    shape = (1, 1, 3, 3, size)
    expected = [cost for kind in PASSES for cost in launch_costs(kind, shape, biased=True)]
    assert [launch.name for launch in made] == [cost.name for cost in expected]
    for launch, cost in zip(made, expected, strict=True):
        calls.clear()
        launch.kernel[launch.grid](*launch.arguments, **launch.constants)
        assert cost.flop == len(calls) * 2 * 3 * 3 * size, launch.name


def test_mask_is_that_of_torchvisions_shifted_windows():
    window, shift, size = (2, 2, 2), (1, 1, 1), (4, 4, 2)
    heads, channels = 2, 8
    draw = torch.Generator().manual_seed(0)
    x, qkv, projection = (
        torch.randn(shape, dtype=torch.float64, generator=draw)
        for shape in ((1, *size, channels), (3 * channels, channels), (channels, channels))
    )
    bias = torch.randn(1, heads, 8, 8, dtype=torch.float64, generator=draw)
    theirs = swin_transformer.shifted_window_attention_3d(x, qkv, projection, bias, list(window), heads, list(shift))
    # the same by hand: roll, cut into windows, attend, and back
    grid = [s // w for s, w in zip(size, window, strict=True)]

    def cut(tensor):  # (1, T, h, w, C) -> (windows, tokens, C)
        parts = tensor.view(1, *(n for pair in zip(grid, window, strict=True) for n in pair), tensor.shape[-1])
        return parts.permute(0, 1, 3, 5, 2, 4, 6, 7).reshape(-1, 8, tensor.shape[-1])

    number = torch.zeros(1, *size, 1, dtype=torch.int8)
    for axis, (length, w, s) in enumerate(zip(size, window, shift, strict=True)):
        place = torch.arange(length)
        part = (place >= length - w).to(torch.int8) + (place >= length - s).to(torch.int8)
        number += part.view([-1 if i == axis + 1 else 1 for i in range(5)]) * 3**axis
    rolled = torch.roll(x, [-s for s in shift], (1, 2, 3))
    q, k, v = (p.transpose(1, 2) for p in (cut(rolled) @ qkv.T).view(-1, 8, 3, heads, channels // heads).unbind(2))
    y = attention(q, k, v, bias=bias[0], regions=cut(number)[..., 0]).transpose(1, 2).flatten(2) @ projection.T
    torch.testing.assert_close(y, cut(torch.roll(theirs, [-s for s in shift], (1, 2, 3))), rtol=1e-12, atol=1e-13)


def test_forward_mode_and_a_third_derivative_raise():
    (q, k, v, bias), do, _ = small(windows=0)
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="forward-mode"):
        attention(forward_ad.make_dual(q, torch.ones_like(q)), k, v)
    first = torch.autograd.grad(attention(q, k, v, bias=bias), (q, bias), do, create_graph=True)
    (second,) = torch.autograd.grad(sum(x.square().sum() for x in first), q, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula"):
        second.sum().backward()


# ------------------------------------------------------------------------------------------------- arguments

TOKENS = torch.zeros(4, 2, 6, 8)


@pytest.mark.parametrize(
    "change, message",
    [
        (dict(q=TOKENS.long()), "floating point"),
        (dict(k=TOKENS.double()), "one floating point dtype"),
        (dict(v=TOKENS[:, :, :5]), r"k and v \(B, H, N, d\)"),
        (dict(q=TOKENS[:, :1]), r"expected q \(B, H, M, d\)"),
        (dict(q=TOKENS[:, :, :0]), "at least one token"),
        (dict.fromkeys("qkv", torch.zeros(1, 1, 2, 257)), "d <= 256"),
        (dict(bias=torch.zeros(2, 6, 5)), r"bias must be \(H, M, N\) = \(2, 6, 6\)"),
        (dict(bias=torch.zeros(2, 6, 6, dtype=torch.int8)), "bias must be floating point"),
        (dict(regions=torch.zeros(2, 6)), "regions must be int8"),
        (dict(regions=torch.zeros(3, 6, dtype=torch.int8)), r"W a divisor of B = 4, got \(3, 6\)"),
        (dict(q=TOKENS[:, :, :5], regions=torch.zeros(2, 6, dtype=torch.int8)), "for M = 5"),
        (dict(bias=torch.zeros(2, 6, 6, device="meta")), "bias is on meta, q on cpu"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(change, message):
    arguments = dict(q=TOKENS, k=TOKENS, v=TOKENS) | change
    tokens = [arguments.pop(name) for name in "qkv"]
    with pytest.raises((TypeError, ValueError), match=message) as caught:
        attention(*tokens, **arguments)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- on a GPU only


@pytest.mark.gpu
@pytest.mark.parametrize("shape, biased", [((8, 3, 392, 392, 32), True), ((2, 12, 1568, 1568, 64), False)])
def test_training_size_repeats(shape, biased):
    module = importlib.import_module("unstill.kernels.attention.triton_form")
    forms = [getattr(module, f"attention{name}_triton") for name in ("", "_backward", "_double_backward")]
    check_attention(forms, "cuda", *shape, dtype=torch.bfloat16, bias=biased, windows=4 if biased else 0)
    inputs = attention_inputs(*shape, torch.bfloat16, "cuda", bias=biased, windows=4 if biased else 0)

    def function(q, k, v, bias, regions):
        return attention(q, k, v, bias=bias, regions=regions)

    first = attention_derivatives(function, *inputs)
    for _ in range(10):
        again = attention_derivatives(function, *inputs)
        assert all(same_bits(first[name], again[name]) for name in first)
