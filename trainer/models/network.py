"""What a network says of itself: its last layer, and how its clips are normalised."""

from dataclasses import dataclass

from torch import nn

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Network:
    """What a ``module:function`` may return instead of the bare module.

    Attributes:
        module: clips (B,3,T,h,w) -> logits (B,classes).
        head: path of its last layer, linear or a convolution; with it ``optimiser.head_lr``, ``optimiser.head_first``,
            another number of classes in ``model.weights``, and methods that read features work.
        mean, std: of its normalisation, in units of the full range; the run's defaults give way to them.
    """

    module: nn.Module
    head: str = ""
    mean: Triple | None = None
    std: Triple | None = None


def keep_facts(network: Network) -> nn.Module:
    """The module, from which ``head_of`` and ``normalisation_of`` read what came with it."""
    vars(network.module)["unstill_network"] = (network.head, network.mean, network.std)
    return network.module


def head_of(module: nn.Module) -> str:
    """Path of the last layer of a network of ``build_model``, or "" where it is not known."""
    return vars(module).get("unstill_network", ("", None, None))[0]


def normalisation_of(module: nn.Module) -> tuple[Triple, Triple] | None:
    """(mean, std) of a network of ``build_model`` that came with them."""
    _, mean, std = vars(module).get("unstill_network", ("", None, None))
    return None if mean is None or std is None else (mean, std)
