"""What the operators allocate on a GPU besides their results, for plans that are made without one.

``fake`` implementations say what comes out of an operator. Not visible there: what its CUDA form needs while it runs
(matrices of one chunk, float32 sums of weight gradients, partial sums of a bias's gradient), and the statistics of rows
that the fused attention keeps for its derivatives.
"""

from typing import NamedTuple

from torch import Tensor

from .attention.operators import has_fused_form
from .attention.torch_form import CHUNK_BYTES as SCORES
from .attention.triton_form import partial_bias_splits
from .row_chunks import CHUNK_BYTES as HIDDEN


class CudaMemory(NamedTuple):
    """Bytes of one call.

    Attributes:
        inside: allocated and freed by the call, all of it alive at once; at most.
        kept: (tensor, bytes): alive as long as this argument or result.
    """

    inside: int = 0
    kept: tuple[tuple[Tensor, int], ...] = ()


MATRICES = {"unstill::attention": 1, "unstill::attention_backward": 2, "unstill::attention_double_backward": 4}
"""Matrices of scores of one chunk, in plain torch."""
HIDDEN_TENSORS = {
    "unstill::mlp": 1,
    "unstill::mlp_backward": 2,
    "unstill::mlp_double_backward": 4,
    "unstill::gelu_linear": 1,
    "unstill::gelu_linear_wgrad": 1,
    "unstill::gelu_linear_dgrad_backward": 2,
}
"""Tensors of the hidden width of one chunk."""
_SUMMED = {  # where the results lie whose sums are float32 until the end
    "unstill::mlp_backward": (1, 2, 3),
    "unstill::mlp_double_backward": (2, 3, 4),
    "unstill::gelu_linear_wgrad": (0,),
    "unstill::gelu_linear_dgrad_backward": (2,),
}


def cuda_memory(name: str, args: tuple, out) -> CudaMemory:
    """The bytes of one call that its results do not show.

    Args:
        name: of the operator with its namespace; of an operator that is not this project's there are none.
        args: its arguments by position, on any device, fake or real.
        out: its result.
    """
    if name in MATRICES:
        return _of_attention(name, args)
    if name not in HIDDEN_TENSORS:
        return CudaMemory()
    results = out if isinstance(out, tuple) else (out,)
    sums = sum(4 * results[at].numel() for at in _SUMMED.get(name, ()) if results[at].element_size() < 4)
    return CudaMemory(HIDDEN_TENSORS[name] * HIDDEN["cuda"] + sums)


def _of_attention(name: str, args: tuple) -> CudaMemory:
    if name == "unstill::attention":
        q, bias, need_bias, kept = args[0], args[3], False, args[0]
    elif name == "unstill::attention_backward":
        q, bias, need_bias, kept = args[1], args[4], args[9], args[0]
    else:
        q, bias, need_bias, kept = args[5], args[8], args[14], None
    if not has_fused_form(q):
        return CudaMemory(MATRICES[name] * SCORES["cuda"])
    statistic = 4 * q.shape[:3].numel()
    inside = 0 if kept is not None else 2 * statistic  # t and x of the second order
    if need_bias:
        kernel = "bias" if kept is not None else "bias2"
        inside += (partial_bias_splits(q, bias, kernel) + 1) * 4 * bias.numel()
    return CudaMemory(inside, ((kept, statistic),) if kept is not None else ())
