"""Drop path (stochastic depth, arXiv 1603.09382): a sample skips residual branches, later ones more often."""

from torch import nn
from torchvision.ops import StochasticDepth

from ...pipeline.errors import InputError

# where transformers drops the result of a branch: the layers that end in a residual sum
_BRANCH_ENDS = ("VideoMAESelfOutput", "VideoMAEOutput")


def set_drop_path(model: nn.Module, rate: float) -> None:
    """Let a network drop its branches with probabilities that grow evenly from 0 to ``rate``; in place.

    Networks with stochastic depth of their own (torchvision's Video Swin and MViT, V-JEPA 2) have its rates changed.
    VideoMAE has dropout at its branches' ends, whose place it takes.

    Args:
        model: of ``build_model``.
        rate: of the last branch, 0 to 1.

    Raises:
        InputError: the network has no branches that are known.
    """
    if not any(isinstance(module, StochasticDepth) for module in model.modules()):
        for module in model.modules():
            if type(module).__name__ in _BRANCH_ENDS:
                module.add_module("dropout", StochasticDepth(0.0, "row"))
            elif type(module).__name__ == "VJEPA2Layer":
                module.add_module("drop_path", StochasticDepth(0.0, "row"))
    # both branches of a block drop at one rate: a block's own module, or two after each other
    blocks = _blocks(model)
    if not blocks:
        raise InputError("model.drop_path: the network has no residual branches that are known; leave it out")
    for number, depths in enumerate(blocks):
        for depth in depths:
            depth.p = rate * number / max(1, len(blocks) - 1)


def _blocks(model: nn.Module) -> list[list[StochasticDepth]]:
    """The modules of each block, in order; a block is what the number before them in their path tells apart."""
    blocks: dict[tuple[str, ...], list[StochasticDepth]] = {}
    for path, module in model.named_modules():
        if isinstance(module, StochasticDepth):
            parts = path.split(".")
            last = max((i for i, part in enumerate(parts) if part.isdigit()), default=len(parts) - 1)
            blocks.setdefault(tuple(parts[: last + 1]), []).append(module)
    return list(blocks.values())
