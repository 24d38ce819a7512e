"""unstill: a high-throughput trainer for video models that recognise motion, not the background.

    from unstill import AugmentConfig, ClipConfig, ClipLoader, evaluate, load_model, train

These names, all in ``__all__``, are the public interface; they are imported on first use, so ``import unstill`` is
light. Everything else is private and may change between versions. The code lives in four subpackages, named as the
folders of the repository: ``unstill.pipeline`` (videos -> shards -> clips), ``unstill.kernels`` (Triton),
``unstill.trainer`` (methods, step, loop, evaluation) and ``unstill.bench``.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see of the names below
    from unstill.pipeline.errors import InputError as InputError
    from unstill.pipeline.loading.clip_dataset import ClipDataset as ClipDataset
    from unstill.pipeline.loading.loader import ClipLoader as ClipLoader
    from unstill.pipeline.loading.loader_config import LoaderConfig as LoaderConfig
    from unstill.pipeline.loading.sampler import AugmentConfig as AugmentConfig
    from unstill.pipeline.loading.sampler import ClipConfig as ClipConfig
    from unstill.pipeline.loading.sampler import ViewConfig as ViewConfig
    from unstill.trainer.checkpoints.checkpoint import load_model as load_model
    from unstill.trainer.config import TrainConfig as TrainConfig
    from unstill.trainer.evaluation.one_run import evaluate as evaluate
    from unstill.trainer.evaluation.subject import Subject as Subject
    from unstill.trainer.train import train as train

__version__ = "0.1.0"

__all__ = [
    "AugmentConfig",
    "ClipConfig",
    "ClipDataset",
    "ClipLoader",
    "InputError",
    "LoaderConfig",
    "Subject",
    "TrainConfig",
    "ViewConfig",
    "evaluate",
    "load_model",
    "train",
]

_MODULES = {
    "AugmentConfig": ".pipeline.loading.sampler",
    "ClipConfig": ".pipeline.loading.sampler",
    "ClipDataset": ".pipeline.loading.clip_dataset",
    "ClipLoader": ".pipeline.loading.loader",
    "InputError": ".pipeline.errors",
    "LoaderConfig": ".pipeline.loading.loader_config",
    "Subject": ".trainer.evaluation.subject",
    "TrainConfig": ".trainer.config",
    "ViewConfig": ".pipeline.loading.sampler",
    "evaluate": ".trainer.evaluation.one_run",
    "load_model": ".trainer.checkpoints.checkpoint",
    "train": ".trainer.train",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
