"""Layers of a video network whose output has places in time and space, and what their outputs are on average.

    for layer in stages(model, clips):               # one for each size of the map, and the input of the last layer
        ...
    pooled(model, clips, layers)["features.5"]       # (B,D): the mean over time and space
    places(model, clips, "features.5")               # (B,D,t,h,w): one vector a place

A layer of a convolutional network gives (B,D,t,h,w), one of a video transformer (B,t,h,w,D); only a layer that mixes
channels can tell which, so these functions watch a forward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ...pipeline.errors import InputError
from ..models.clip_view import ClipView

PENULTIMATE, LOGITS = "penultimate", "logits"  # what the last layer sees, and what it says


@dataclass(frozen=True)
class FeatureMap:
    """A layer whose output has places in time and space.

    Attributes:
        name: its dotted name in the model.
        layer: the module.
        channels_last: whether its output is (B,t,h,w,K), as in video transformers, and not (B,K,t,h,w).
    """

    name: str
    layer: nn.Module
    channels_last: bool


_CHANNELS_FIRST = (nn.Conv3d, nn.ConvTranspose3d, nn.BatchNorm3d, nn.InstanceNorm3d, nn.GroupNorm)


def last_map(model: nn.Module, clips: Tensor, side: int = 2) -> FeatureMap:
    """The last layer whose output still has places in space.

    Args:
        clips: a batch (B,3,T,H,W) to run the model on, one clip is enough.
        side: least number of places along height and along width; more of them give a finer map of an earlier layer.

    Raises:
        InputError: the model has no such layer.
    """
    found: list[FeatureMap] = []

    def note(name: str, layer: nn.Module, output: Tensor, tokens: bool) -> None:
        if tokens and not isinstance(layer, nn.LayerNorm):
            return  # inside a block of a transformer: what it adds to the tokens, not the tokens
        height, width = output.shape[2:4] if tokens else output.shape[3:5]
        if not list(layer.children()) and min(height, width) >= side:
            found.append(FeatureMap(name, layer, tokens))

    _watch_maps(model, clips, note)
    if not found:
        raise InputError(
            f"{type(model).__name__}: no layer gives a map (B,K,t,h,w) or (B,t,h,w,K) with {side} x {side} places; "
            "a heat map needs it"
        )
    return found[-1]


def stages(model: nn.Module, clips: Tensor) -> list[str]:
    """Names of the layers to compare: the last one of each size of the map, and the input of the last layer.

    Looked for among the model's children and, where these are an ``nn.Sequential``, theirs.

    Args:
        clips: a batch (B,3,T,h,w) to run the model on, one clip is enough.
    """
    candidates = {}
    for name, child in model.named_children():
        if not isinstance(child, ClipView):  # it changes the clip, and is no layer
            candidates[child] = name
        if isinstance(child, nn.Sequential):
            candidates |= {part: f"{name}.{inner}" for inner, part in child.named_children()}
    sizes: list[tuple[torch.Size, str]] = []

    def note(_name: str, layer: nn.Module, output: Tensor, tokens: bool) -> None:
        places = output.shape[2:4] if tokens else output.shape[3:5]
        if layer in candidates and min(places) > 1:
            if sizes and sizes[-1][0] == output.shape:
                sizes.pop()
            sizes.append((output.shape, candidates[layer]))

    _watch_maps(model, clips, note)
    return [*(name for _, name in sizes), PENULTIMATE]


def pooled(model: nn.Module, clips: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Outputs of layers, averaged over time and space.

    Args:
        model: clips -> logits, in eval mode.
        clips: (B,3,T,h,w).
        layers: dotted names of modules, or ``penultimate`` (what the last linear layer sees) or ``logits``.

    Returns:
        Name -> float32 (B,D).

    Raises:
        InputError: no layer has that name, or its output is no map, no tokens (B,N,D) and no vector.
    """
    return {name: _mean(output, name) for name, output in _outputs(model, clips, layers).items()}


def places(model: nn.Module, clips: Tensor, layer: str) -> Tensor:
    """Output of a layer at every place.

    Args:
        model, clips, layer: see ``pooled``.

    Returns:
        float32 (B,D,t,h,w) of a map, (B,D,N) of tokens without known places.

    Raises:
        InputError: see ``pooled``; or the output is one vector a clip.
    """
    output = _outputs(model, clips, [layer])[layer]
    if isinstance(output, Tensor) and output.ndim == 5 and output[0, 0].numel() > 1:
        return output.float()
    if isinstance(output, Tensor) and output.ndim == 3:
        return output.transpose(1, 2).float()
    raise InputError(
        f"layer {layer!r} of {type(model).__name__} gives {_shape(output)}, nothing at single places; name an earlier "
        "layer with --layer"
    )


def _outputs(model: nn.Module, clips: Tensor, layers: Sequence[str]) -> dict[str, object]:
    """Outputs of layers by name, see ``pooled``; a map of a transformer as (B,D,t,h,w)."""
    modules = dict(model.named_modules())
    unknown = next((name for name in layers if name not in modules and name not in (PENULTIMATE, LOGITS)), None)
    if unknown is not None:
        some = ", ".join(name for name in modules if name.count(".") == (1 if "." in unknown else 0) and name)
        raise InputError(f"layer {unknown!r}: {type(model).__name__} has none of that name; it has {some}")
    found: dict[str, object] = {}
    tokens, head = False, None

    def note(layer: nn.Module, inputs: tuple, output: object) -> None:
        nonlocal tokens, head
        tokens = _tokens_after(layer, output, tokens)
        if isinstance(layer, nn.Linear | nn.Conv3d) and isinstance(inputs[0], Tensor):
            head = inputs[0]
        for name in layers:
            if modules.get(name) is layer:
                first = output[0] if isinstance(output, tuple) else output
                if tokens and isinstance(first, Tensor) and first.ndim == 5:
                    first = first.permute(0, 4, 1, 2, 3)
                found[name] = first

    with _hooks(model, note), torch.no_grad():
        logits = model(clips)
    if LOGITS in layers:
        found[LOGITS] = logits
    if PENULTIMATE in layers:
        if head is None:
            raise InputError(f"{type(model).__name__}: no linear layer or convolution, so nothing is its last layer")
        found[PENULTIMATE] = head
    never = next((name for name in layers if name not in found), None)
    if never is not None:
        raise InputError(f"layer {never!r}: {type(model).__name__} does not run it on a clip; choose another")
    return {name: found[name] for name in layers}


def _mean(output: object, name: str) -> Tensor:
    if isinstance(output, Tensor) and output.ndim == 5:
        return output.mean((2, 3, 4)).float()
    if isinstance(output, Tensor) and output.ndim in (2, 3):
        return (output if output.ndim == 2 else output.mean(1)).float()
    raise InputError(f"layer {name!r} gives {_shape(output)}; expected (B,D,t,h,w), (B,t,h,w,D), (B,N,D) or (B,D)")


def _shape(output: object) -> str:
    return str(tuple(output.shape)) if isinstance(output, Tensor) else type(output).__name__


def _tokens_after(layer: nn.Module, output: object, before: bool) -> bool:
    """Whether the clip is on its way as tokens (B,t,h,w,D) once a layer has run."""
    if isinstance(output, Tensor) and output.ndim == 5:
        if isinstance(layer, nn.LayerNorm | nn.Linear):
            return True
        if isinstance(layer, _CHANNELS_FIRST):
            return False
    return before


def _watch_maps(model: nn.Module, clips: Tensor, note: Callable[[str, nn.Module, Tensor, bool], None]) -> None:
    """Run the model on one clip; ``note(name, layer, output, tokens)`` for each output with five axes."""
    names = {layer: name for name, layer in model.named_modules()}
    tokens = False

    def watch(layer: nn.Module, _inputs: tuple, output: object) -> None:
        nonlocal tokens
        tokens = _tokens_after(layer, output, tokens)
        if isinstance(output, Tensor) and output.ndim == 5:
            note(names[layer], layer, output, tokens)

    with _hooks(model, watch), torch.no_grad():
        model(clips[:1])


@contextmanager
def _hooks(model: nn.Module, hook: Callable[[nn.Module, tuple, object], None]) -> Iterator[None]:
    handles = [layer.register_forward_hook(hook) for layer in model.modules() if layer is not model]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
