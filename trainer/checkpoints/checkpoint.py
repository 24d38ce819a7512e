"""Saving a run while it goes on, continuing it, and loading its model.

model, config, classes = load_model("runs/hmdb51")      # its newest checkpoint; also runs/hmdb51/best, .../step-500
"""

import json
import logging
import os
import pickle
import platform
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from unstill import __version__

from ...pipeline.bounded_files import check_plain, read_json
from ...pipeline.errors import InputError
from ...pipeline.safe_text import printable
from ...pipeline.shards.dataset_info import DatasetInfo
from ...pipeline.source_commit import commit
from ..config import TrainConfig, differences, from_dict, to_dict
from ..distributed import Ranks, average_buffers
from ..models.clip_view import add_view
from ..models.registry import build_model
from ..optimisers.batch_rule import base_rate
from ..optimisers.schedule import multiplier
from ..state import TrainState
from .files import (
    TRAINING_STATE,
    find_checkpoint,
    point,
    pointed,
    prune,
    step_folder,
    step_of,
    steps_on_disk,
    sweep,
    verify_checkpoint,
    weights_file,
    write_checkpoint,
)

log = logging.getLogger(__name__)

CONFIG = "config.json"


class Checkpointer:
    """Writes a run's checkpoints, in the background if wanted; only the first rank touches the disk.

    Args:
        config: the run's; ``config.checkpoint`` says when to save, and all of it is saved.
        data: the dataset's facts, saved and compared on resuming.
        ranks: this process.
    """

    def __init__(self, config: TrainConfig, data: DatasetInfo, ranks: Ranks):
        self.folder = config.out / "checkpoints"
        self._config, self._data, self._ranks = config, data, ranks
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future | None = None
        self._failed = 0
        self._saved_step = -1

    def resume(self, state: TrainState, steps: int) -> bool:
        """Continue from the run folder's checkpoint; returns whether there was one.

        Args:
            state: gets what the checkpoint holds.
            steps: length of the run now; longer than it was with ``extend``.

        Raises:
            InputError: the folder has a run of other settings or data, a damaged checkpoint, or (resume never) any run.
        """
        mode = self._config.checkpoint.resume
        latest = pointed(self.folder)
        if mode == "never" and (latest or steps_on_disk(self.folder)):
            raise InputError(
                f"{self._config.out}: holds a run already; choose another --out, or --checkpoint.resume latest"
            )
        if latest is None:
            return False
        # `latest` itself first: in auto mode then whatever else is there, newest first
        candidates = [latest] + [path for path in steps_on_disk(self.folder) if path != latest] * (mode == "auto")
        for path in candidates:
            try:
                verify_checkpoint(path)
            except InputError as error:
                if path == candidates[-1] or mode != "auto":
                    raise
                log.warning("%s; falling back", error)
                continue
            lengthened = self._check_same(path)
            state.restore(path)
            if lengthened is not None:
                self._say_lengthened(lengthened, state.step, steps)
            self._saved_step = state.step
            return True
        return False

    def sweep(self) -> None:
        """Remove what a killed save left behind."""
        if self._ranks.first:
            sweep(self.folder)

    def due(self, step: int) -> bool:
        """Whether this step is one after which to save."""
        every = self._config.checkpoint.every
        return every > 0 and step % every == 0

    def save(self, state: TrainState, *, wait: bool = False) -> None:
        """Save the state as it is now; all ranks must call it.

        Args:
            state: the run.
            wait: return when it is on the disk, and raise if it could not be written.

        Raises:
            InputError: ``checkpoint.max_failed`` saves in a row failed, or this one did and ``wait`` is set.
        """
        average_buffers(state.trained, self._ranks)
        state.meter.share()
        if not self._ranks.first:
            return
        self.finish(strict=False)
        if state.step != self._saved_step:
            snapshot, event = state.snapshot(), None
            if self._ranks.device.type == "cuda":
                event = torch.cuda.Event()
                event.record()
            self._saved_step = state.step
            self._pending = self._writer.submit(self._write, snapshot, event)
        if wait or not self._config.checkpoint.background:
            self.finish(strict=wait)

    def point_best(self, step: int) -> None:
        """Point ``best`` at the checkpoint of a step, unless it could not be written."""
        if not self._ranks.first:
            return
        self.finish(strict=False)
        if self._saved_step == step:
            point(self.folder, "best", step_folder(self.folder, step).name)

    def finish(self, *, strict: bool = True) -> None:
        """Wait for the save that is under way.

        Raises:
            InputError: it failed, and it was not the first in a row to fail or ``strict`` is set.
        """
        if self._pending is None:
            return
        try:
            self._pending.result()
        except (OSError, InputError, RuntimeError) as error:  # torch's and safetensors' writers raise RuntimeError, too
            self._pending = None  # not sooner: Ctrl-C may interrupt the wait, and the save still goes on
            self._failed += 1
            self._saved_step = -1
            latest = pointed(self.folder)
            text = f"checkpoint not written ({error}); {latest.name if latest else 'none'} is still the newest one"
            if strict or self._failed >= self._config.checkpoint.max_failed:
                raise InputError(f"{self.folder}: {text}; free some space and run the same command again") from error
            log.warning(
                "%s; training goes on (%d of %d failures in a row)",
                text,
                self._failed,
                self._config.checkpoint.max_failed,
            )
        else:
            self._pending, self._failed = None, 0

    def close(self) -> None:
        """End the writer's thread; what is under way is finished first."""
        self._writer.shutdown(wait=True)

    def newest(self) -> int | None:
        """Step of the newest checkpoint, once what is under way is written; None where there is none."""
        self.finish(strict=False)
        latest = pointed(self.folder)
        return None if latest is None else step_of(latest)

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is."""
        return step_folder(self.folder, step)

    def _write(self, snapshot, event) -> None:
        if event is not None:  # off the training stream: the copy to the host must not hold up a step
            with torch.cuda.device(self._ranks.device), torch.cuda.stream(torch.cuda.Stream()):
                torch.cuda.current_stream().wait_event(event)
                snapshot = snapshot.to_cpu()
        step = snapshot.training_state["step"]
        text = json.dumps(run_record(self._config, self._data), indent=1)
        files = snapshot.writers() | {CONFIG: lambda path: path.write_text(text)}
        write_checkpoint(self.folder, step, files)
        prune(self.folder, self._config.checkpoint.keep)

    def _check_same(self, path: Path) -> TrainConfig | None:
        """Refuse other settings or data; returns the saved configuration where the run is to be lengthened."""
        saved, _, digest = read_record(path / CONFIG)
        now = self._config
        longer = now.epochs > saved.epochs and not differences(replace(saved, epochs=now.epochs), now)
        finished = step_of(path) >= saved.total_steps(self._data.samples)
        if longer and now.extend and not finished:
            raise InputError(
                f"{now.out}: only a finished run is lengthened, and this one is at step {step_of(path)} of "
                f"{saved.total_steps(self._data.samples)}; finish it with --epochs {saved.epochs:g} first"
            )
        changed = [] if longer and now.extend else differences(saved, now)
        if changed:
            also = ""
            if longer and finished:
                also = (
                    f"; --extend goes on with it, --model.weights {now.out} with another --out starts from its weights"
                )
            raise InputError(
                f"{now.out}: holds a run with other settings ({'; '.join(changed[:3])}); "
                f"choose another --out, or give the same settings{also}"
            )
        if digest != self._data.digest:
            raise InputError(
                f"{self._config.data}: is not the dataset that the run in {self._config.out} was trained on (their "
                "manifests differ); give that dataset, or choose another --out"
            )
        return saved if longer else None

    def _say_lengthened(self, saved: TrainConfig, step: int, steps: int) -> None:
        now = self._config
        base = base_rate(now.optimiser, now.batch_size)
        before = base * multiplier(saved.schedule.over(saved.epochs), step - 1, step)
        rate = base * multiplier(now.schedule.over(now.epochs), step, steps)
        log.info(
            "%s: lengthened from %g to %g epochs (%d to %d steps); the learning rate goes on as in a run of %g epochs: "
            "it ended at %.2g, is %.2g now, and follows %s from here",
            *(now.out, saved.epochs, now.epochs, step, steps, now.epochs, before, rate, now.schedule.kind),
        )


def run_record(config: TrainConfig, data: DatasetInfo) -> dict:
    """What config.json holds: the resolved configuration, the base learning rate at its batch, the classes, the digest
    of the data set, and the versions."""
    return {
        "config": to_dict(config),
        "learning_rate": base_rate(config.optimiser, config.batch_size),
        "classes": list(data.classes),
        "dataset": {"samples": data.samples, "digest": data.digest},
        "environment": {
            "unstill": __version__,
            "commit": commit(),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "device": torch.cuda.get_device_name() if config.device == "cuda" else platform.machine(),
            "world_size": int(os.environ.get("WORLD_SIZE", 1)),
        },
    }


def read_record(path: Path) -> tuple[TrainConfig, list[str], str]:
    """(configuration, class names, dataset digest) of a config.json."""
    try:
        record = read_json(path)
        classes, digest = record["classes"], record["dataset"]["digest"]
        if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
            raise ValueError("its classes are not a list of names")
        return from_dict(record["config"]), classes, digest
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; expected a run or checkpoint made by `unstill train`") from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, OSError) as error:
        raise InputError(f"{path}: damaged ({type(error).__name__}: {error}); use another checkpoint") from None


def load_model(path: str | os.PathLike, *, trust_model_code: bool = False) -> tuple[nn.Module, TrainConfig, list[str]]:
    """Load a trained network, on the CPU and in evaluation mode.

    Args:
        path: see ``find_checkpoint``: a run folder stands for its newest checkpoint, ``RUN/best`` for the best one.
        trust_model_code: allow the checkpoint to name a ``module:function``, whose code then runs.

    Returns:
        ``(model, config, classes)``; the weights are the moving average where the run kept one.

    Raises:
        InputError: no checkpoint there, a damaged one, or one that names code that is not trusted.
    """
    checkpoint = find_checkpoint(Path(path))
    verify_checkpoint(checkpoint)
    config, classes, _ = read_record(checkpoint / CONFIG)
    model = build_model(
        config.model.name,
        len(classes),
        frames=config.clip.frames,
        size=config.clip.size,
        architecture=config.model.architecture,
        named_in=checkpoint / CONFIG,
        trust_code=trust_model_code,
    )
    load_weights(model, weights_file(checkpoint))
    add_view(model, config.model.view)
    return model.eval(), config, classes


def load_weights(model: nn.Module, path: Path) -> None:
    """Give ``model`` the tensors of a .safetensors file, which must be all of its own and no others.

    Raises:
        InputError: the file is missing, damaged, or of another network.
    """
    try:
        model.load_state_dict(load_file(check_plain(path)))
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = printable(" ".join(str(error).split())[:200])
        raise InputError(f"{path}: not the weights of this network ({reason}); use another checkpoint") from None


def start_from(run: Path, model: nn.Module, method_module: nn.Module | None) -> None:
    """Give a network, and what its method adds to it, the newest weights of a run that had the same of both.

    Args:
        run: its folder.
        model: gets the run's network; its moving average where the run kept one.
        method_module: gets what the run's method added, or None.

    Raises:
        InputError: there is no such run, or its network or method is another one.
    """
    checkpoint = find_checkpoint(run)
    verify_checkpoint(checkpoint)
    try:
        saved = torch.load(checkpoint / TRAINING_STATE, map_location="cpu", weights_only=True)
        model.load_state_dict(load_file(weights_file(checkpoint)))  # tensors only: the run's own code is not needed
        if method_module is not None:
            method_module.load_state_dict(saved["extra"])
    except (RuntimeError, SafetensorError, pickle.UnpicklingError, KeyError, TypeError, AttributeError) as error:
        reason = printable(" ".join(str(error).split()))
        raise InputError(
            f"method.first_stage {run}: its network, or what its method adds to it, is another one ({reason[:200]}); "
            "give a run of the same model, classes and method"
        ) from None
