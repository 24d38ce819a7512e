"""What a memory plan adds for the operators is what they allocate."""

import importlib

import pytest
import torch

from unstill.kernels import row_chunks
from unstill.kernels.cuda_memory import HIDDEN_TENSORS, MATRICES, cuda_memory
from unstill.kernels.gelu_linear import gelu_linear_dgrad_backward, gelu_linear_op, gelu_linear_wgrad
from unstill.kernels.mlp import mlp_backward, mlp_double_backward, mlp_op

torch_form = importlib.import_module("unstill.kernels.attention.torch_form")
operators = importlib.import_module("unstill.kernels.attention.operators")


def attention_calls(dtype: torch.dtype):
    """Each operator with its arguments: two windows, two heads, five queries, seven keys."""
    q, a, do = (torch.randn(2, 2, 5, 4).to(dtype) for _ in range(3))
    k, v, b, c = (torch.randn(2, 2, 7, 4).to(dtype) for _ in range(4))
    bias = torch.randn(2, 5, 7)
    yield operators.attention_op, (q, k, v, bias, None, 0.5)
    yield operators.backward_op, (do, q, k, v, bias, None, None, None, 0.5, True)
    yield operators.double_backward_op, (a, b, c, None, do, q, k, v, bias, None, None, None, None, 0.5, True)


def hidden_calls():
    x, dy, a = torch.randn(6, 3), torch.randn(6, 2), torch.randn(6, 3)
    w1, w2, h = torch.randn(8, 3), torch.randn(2, 8), torch.randn(6, 8)
    yield mlp_op, (x, w1, None, w2, None)
    yield mlp_backward, (dy, x, w1, None, w2, True)
    yield mlp_double_backward, (a, dy, x, w1, None, w2)
    yield gelu_linear_op, (h, w2, None)
    yield gelu_linear_wgrad, (dy, h)
    yield gelu_linear_dgrad_backward, (h, dy, h, w2)


def test_matrices_of_a_chunk(monkeypatch):
    """Those of attention in plain torch, which serves float32 on a GPU, and of the layers after gelu."""
    chunks, found = torch_form.chunks, {}

    def watched(q, k):
        for chunk in chunks(q, k):
            yield chunk
            found[name] = len(chunk.scratch)

    monkeypatch.setattr(torch_form, "chunks", watched)
    for op, arguments in attention_calls(torch.float32):
        name = op._opoverload._schema.name
        out = op(*arguments)
        assert cuda_memory(name, arguments, out).inside == found[name] * torch_form.CHUNK_BYTES["cuda"]
    assert found == MATRICES

    made = []

    class Watched(row_chunks.Workspace):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            made.append(self)

    for module in ("mlp", "gelu_linear"):
        monkeypatch.setattr(importlib.import_module(f"unstill.kernels.{module}"), "Workspace", Watched)
    for op, arguments in hidden_calls():
        name = op._opoverload._schema.name
        op(*arguments)
        on_a_gpu = made[-1]._made.keys() - {"scratch"}
        assert len(on_a_gpu) == HIDDEN_TENSORS[name], name
    assert len(made) == len(HIDDEN_TENSORS)


@pytest.mark.parametrize("number", range(3))
def test_statistics_of_the_fused_attention(number):
    op, arguments = list(attention_calls(torch.bfloat16))[number]
    found = cuda_memory(op._opoverload._schema.name, arguments, ())
    statistic, bias = 4 * 2 * 2 * 5, 4 * 2 * 5 * 7
    q, do = arguments[0], arguments[0]
    # two splits of the two windows, and their sum
    assert found.inside == (0, 3 * bias, 3 * bias + 2 * statistic)[number]
    kept = ((q, statistic),), ((do, statistic),), ()
    assert [(id(tensor), size) for tensor, size in found.kept] == [(id(t), size) for t, size in kept[number]]


def test_sums_of_16_bit_gradients_are_float32():
    dy, h = torch.randn(6, 2).bfloat16(), torch.randn(6, 8).bfloat16()
    short = cuda_memory("unstill::gelu_linear_wgrad", (dy, h), gelu_linear_wgrad(dy, h)).inside
    long = cuda_memory("unstill::gelu_linear_wgrad", (dy.float(), h.float()), torch.empty(2, 8)).inside
    assert short - long == 4 * 2 * 8
    assert cuda_memory("aten::mm", (dy, h), dy) == (0, ())
