"""Refusal of forward-mode differentiation, which a custom op would otherwise answer with a silent zero."""

from torch import Tensor
from torch.autograd import forward_ad


def refuse_forward_mode(op: str, *tensors: Tensor) -> None:
    """Raise when one of ``tensors`` carries a forward-mode tangent (``torch.func.jvp``, ``forward_ad.make_dual``).

    ``torch.library.register_autograd`` knows reverse mode only: without this check the tangent of the result is zero
    (torch 2.11 and 2.15), and every gradient derived from it silently wrong. The check is traceable by torch.compile.

    Raises:
        NotImplementedError: a tensor has a tangent.
    """
    for tensor in tensors:
        if forward_ad.unpack_dual(tensor).tangent is not None:
            raise NotImplementedError(f"{op} has no forward-mode derivative: use reverse mode (torch.autograd.grad)")
