"""``unstill export``: a run becomes a folder that others can use, with or without this package.

export(ExportConfig(run=Path("runs/hmdb51_albar"), out=Path("exported")))
"""

import logging
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from ...pipeline.errors import InputError
from .card import CARD, Measured, card_text, read_measured, read_origin
from .classifier import WEIGHTS, Classifier, Facts, load_classifier
from .config import ExportConfig
from .hub import push

log = logging.getLogger(__name__)

TORCH_FILE, ONNX_FILE = "model.pt2", "model.onnx"
# exported and eager logits may differ by this share of their largest: other kernels round otherwise
AGREE = 1e-3


@dataclass(frozen=True)
class Exported:
    """What ``export`` wrote.

    Attributes:
        folder: the new folder.
        difference: format -> largest difference of its logits from the original's, relative to the largest logit.
        address: of the repository that it was uploaded to, if it was.
    """

    folder: Path
    difference: dict[str, float]
    address: str | None = None


def export(config: ExportConfig, measured: Measured | None = None) -> Exported:
    """Write the folder, and check every format against the original on random frames.

    The folder appears complete or not at all.

    Args:
        config: what, and where to.
        measured: for the card; by default that of ``config.evaluation``.

    Raises:
        InputError: no run there, the folder exists, the network cannot be exported, or an export does not agree.
    """
    if config.out.exists():
        raise InputError(f"{config.out}: exists already; choose another --out")
    card = config.card or config.push is not None
    origin = read_origin(config.run) if card else None
    if origin is not None and config.evaluation is not None:
        measured = read_measured(config.evaluation, origin.name)
    classifier, facts = load_classifier(config.run, trust_model_code=config.trust_model_code)
    clip = facts.clip
    example = torch.randint(0, 256, (2, clip.frames, clip.size, clip.size, 3), dtype=torch.uint8)
    with torch.inference_mode():
        expected = classifier(example)
    partial = config.out.with_name(f".{config.out.name}.{os.getpid()}.{secrets.token_hex(8)}.partial")
    try:
        partial.mkdir(parents=True)
        facts.save(partial)
        state = {name: value.contiguous() for name, value in classifier.model.state_dict().items()}
        save_file(state, partial / WEIGHTS)
        if origin is not None:
            (partial / CARD).write_text(card_text(origin, facts, measured, config.license))
        difference = {}
        for name in config.formats:
            run = {"torch_export": to_torch_export, "onnx": to_onnx}[name](classifier, facts, example, partial)
            with torch.inference_mode():
                apart = (run(example) - expected).abs().max() / expected.abs().max().clamp(min=1e-12)
            difference[name] = float(apart)
            if not difference[name] <= AGREE:
                raise InputError(f"{config.run}: its {name} form gives other logits (by {difference[name]:.2g})")
        os.rename(partial, config.out)
    except OSError as error:
        raise InputError(f"{config.out}: cannot be written ({error.strerror}); choose another --out") from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    address = None if config.push is None else push(config.out, config.push)
    return Exported(config.out, difference, address)


def to_torch_export(classifier: Classifier, facts: Facts, example: torch.Tensor, folder: Path) -> Callable:
    """Write model.pt2, for any number of clips; returns what runs it."""
    program = _trace(classifier, facts, example)
    torch.export.save(program, folder / TORCH_FILE)
    return torch.export.load(folder / TORCH_FILE).module()


def to_onnx(classifier: Classifier, facts: Facts, example: torch.Tensor, folder: Path) -> Callable:
    """Write model.onnx, for any number of clips; returns what runs it: onnxruntime, or the original without one."""
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise InputError("the onnx format needs two packages; pip install onnx onnxscript") from None
    program = torch.onnx.export(_trace(classifier, facts, example), dynamo=True, verbose=False)
    assert program is not None, "the dynamo exporter returns the program"
    program.save(folder / ONNX_FILE)
    try:
        return onnx_runner(folder / ONNX_FILE)
    except InputError:
        log.warning("onnxruntime is not installed: model.onnx is written, but not compared with the original")
        return classifier


def onnx_runner(path: Path) -> Callable:
    """uint8 frames -> logits by onnxruntime.

    Raises:
        InputError: it is not installed, or the file is not there.
    """
    try:
        import onnxruntime
    except ImportError:
        raise InputError("running model.onnx needs onnxruntime; pip install onnxruntime") from None
    if not path.exists():
        raise InputError(f"{path}: no such file; export with --formats onnx")
    session = onnxruntime.InferenceSession(str(path), providers=onnxruntime.get_available_providers())
    name = session.get_inputs()[0].name
    return lambda frames: torch.from_numpy(session.run(None, {name: frames.cpu().numpy()})[0])


def _trace(classifier: Classifier, facts: Facts, example: torch.Tensor) -> torch.export.ExportedProgram:
    try:
        return torch.export.export(classifier, (example,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    except Exception as error:  # anything the network does may be the reason
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"model {facts.model} cannot be traced by torch.export ({reason}); "
            "export the weights alone: --formats without a value"
        ) from error
