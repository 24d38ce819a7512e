"""Which gradients the backward pass that is running wants from a custom op.

A gradient penalty differentiates the network by its clip alone and then that gradient by the weights:

    (g,) = torch.autograd.grad(logits.sum(), clip, create_graph=True)    # inner gradient: no weight gradient is wanted
    (loss + g.norm()).backward()                                         # outer gradient: all of them are

ATen's own ops leave the weight gradients out of the first. For a Python backward formula ``ctx.needs_input_grad`` is
fixed in the forward and True for a weight in both, so an op that trusts it computes every weight gradient of the inner
gradient for nothing (20 of 20 in r3d_18). ``wanted`` asks autograd's engine instead. The caller of
``torch.autograd.grad`` has nothing to declare, threads of the engine (one per GPU) do not matter, and it is right
while torch.compile traces, because AOTAutograd runs the same engine.
"""

import torch


def wanted(ctx, number: int) -> bool:
    """Whether the running backward pass uses the gradient of one tensor argument.

    Args:
        ctx: the context that a backward formula of ``torch.library.register_autograd`` or of an
            ``torch.autograd.Function`` receives. Only valid while that formula runs.
        number: position of the argument among the op's arguments that are tensors; those that are None, numbers or
            lists do not count.

    Returns:
        False if the argument does not require a gradient, or if its gradient leads to none of the tensors that
        ``torch.autograd.grad`` (or ``backward(inputs=...)``) was asked for. True otherwise.
    """
    node, _ = ctx.next_functions[number]
    if node is None:
        return False
    try:
        return torch._C._will_engine_execute_node(node)
    except RuntimeError:  # the argument is itself a leaf that the gradient is taken of: the engine has no node to run
        return True
