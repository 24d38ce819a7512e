"""Runs on the procedural dataset: a seed's videos are made once, each recipe is trained and measured once on them.

<folder>/seed<n>/videos, shards, people.csv    made by ``make_data``
<folder>/seed<n>/stills.safetensors            made before the first run that needs it
<folder>/seed<n>/bias/<name>                   a training run
<folder>/seed<n>/bias/<name>.json              its settings and measures: what is here is not trained again
"""

import json
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from ....pipeline.atomic_files import write_atomic
from ....pipeline.conversion.convert import ConvertConfig, convert
from ....pipeline.errors import InputError
from ....pipeline.loading.codec_support import codec_for
from ....pipeline.shards.index import SampleIndex
from ....trainer.augmentations import StillMix
from ....trainer.config import TrainConfig, from_dict, to_dict
from ....trainer.demo.motions.boxes import write_boxes
from ....trainer.demo.motions.files import write_motions
from ....trainer.demo.motions.harder import HarderWorld
from ....trainer.demo.motions.world import SHARD_QUALITY, TESTS, MotionsConfig
from ....trainer.demo.recipes import demo_reference
from ....trainer.demo.settings import DemoConfig, demo_sets
from ....trainer.diagnostics.config import StillBankConfig
from ....trainer.diagnostics.still_bank import build_still_bank
from ....trainer.evaluation.config import EvaluateOptions
from ....trainer.evaluation.evaluate import evaluate
from ....trainer.evaluation.subject import load_subject
from ....trainer.train import train
from .measures import COLUMNS, criterion

PEOPLE, STILLS = "people.csv", "stills.safetensors"
NOT_OF_A_RUN = ("data", "out", "loader", "log", "checkpoint")  # settings that change no number of its measures


@dataclass(frozen=True, kw_only=True)
class ProceduralRuns:
    """The runs of one folder.

    Attributes:
        folder: holds each seed's videos, shards and runs.
        train: number of training videos.
        test: number of videos in each test set.
        epochs: passes over the training videos; None: each recipe's own.
        device: where to train.
    """

    folder: Path
    train: int = 1024
    test: int = 512
    epochs: float | None = None
    device: Literal["cpu", "cuda"] = "cpu"

    def of_seed(self, seed: int) -> Path:
        """The folder of a seed."""
        return self.folder / f"seed{seed}"

    def run_folder(self, name: str, seed: int) -> Path:
        """The folder of a run."""
        return self.of_seed(seed) / "bias" / name

    def make_data(self, seed: int, world: HarderWorld | None = None) -> Path:
        """Render and convert the videos of one seed and box the actors, or find it done.

        Returns:
            The seed's folder.

        Raises:
            InputError: the folder holds another number of videos.
        """
        folder = self.of_seed(seed)
        harder = world or HarderWorld()
        videos = MotionsConfig(out=folder / "videos", seed=seed, train=self.train, test=self.test, harder=harder)
        write_motions(videos)
        codec = codec_for(self.device)
        for split in ("train", *TESTS):
            convert(
                ConvertConfig(
                    source=videos.out / split,
                    out=folder / "shards" / split,
                    codec=codec,
                    quality=SHARD_QUALITY.get(codec),
                    short_side=videos.size,
                    samples_per_shard=256,
                    classes=None if split == "train" else folder / "shards" / "train" / "dataset.json",
                )
            )
            expected = self.train if split == "train" else self.test
            if (found := len(SampleIndex.load(folder / "shards" / split))) != expected:
                raise InputError(
                    f"{folder}: holds {found} {split} videos, not {expected}; choose another folder: --runs"
                )
        if not (folder / PEOPLE).exists():
            write_boxes(videos.out, "train", folder / PEOPLE)
        return folder

    def settings(self, name: str, recipe: TrainConfig, seed: int) -> TrainConfig:
        """A recipe on one seed's data: its videos, and what they are known to show."""
        folder = self.of_seed(seed)
        changes: dict[str, Any] = {} if self.epochs is None else {"epochs": self.epochs}
        if getattr(recipe.method, "scenes", None) is not None:
            changes["method"] = replace(recipe.method, scenes=folder / "videos" / "truth" / "train.csv")
        if recipe.inputs.people is not None:
            changes["inputs"] = replace(recipe.inputs, people=folder / PEOPLE)
        if isinstance(recipe.augmentation, StillMix):
            changes["augmentation"] = replace(recipe.augmentation, bank=folder / STILLS)
        return replace(
            recipe,
            data=folder / "shards" / "train",
            out=self.run_folder(name, seed),
            seed=seed,
            device=self.device,
            **changes,
        )

    def known(self, name: str, recipe: TrainConfig, seed: int) -> dict[str, float] | None:
        """What ``measures`` found before, with this recipe; None where it has yet to be trained."""
        done = _measures_file(self.run_folder(name, seed))
        if not done.exists():
            return None
        settings, saved = self.settings(name, recipe, seed), json.loads(done.read_text())
        # options that came later are read at their defaults: they do not make a run another one
        same = from_dict({**to_dict(settings), **saved["settings"]}) == settings
        return saved["measures"] if same and {*COLUMNS, "train_cpu_seconds"} <= set(saved["measures"]) else None

    def measures(self, name: str, recipe: TrainConfig, seed: int) -> dict[str, float]:
        """Measures of one recipe on one seed's data, trained if it is not known.

        Args:
            name: of the run's folder.
            recipe: what to train.
            seed: of the videos (``make_data``), the weights and the order.

        Returns:
            Every measure in percent, and the seconds it trained: ``train_seconds`` by the clock, ``train_cpu_seconds``.
        """
        known = self.known(name, recipe, seed)
        if known is not None:
            return known
        settings = self.settings(name, recipe, seed)
        if isinstance(settings.augmentation, StillMix) and not (self.of_seed(seed) / STILLS).exists():
            self._make_stills(seed)
        began, cpu_began = time.monotonic(), time.process_time()
        train(settings)
        seconds, cpu_seconds = time.monotonic() - began, time.process_time() - cpu_began
        demo = DemoConfig(out=self.of_seed(seed), seed=seed, device=self.device)
        options = EvaluateOptions(device=self.device, seed=seed)
        result = evaluate([load_subject(settings.out, name)], demo_sets(demo), options)[name]
        measures = {name: round(share.value, 3) for name, share in result.card.shares.items()}
        measures["criterion"] = round(criterion(measures), 3)
        measures |= {"train_seconds": round(seconds, 1), "train_cpu_seconds": round(cpu_seconds, 1)}
        kept = {option: value for option, value in to_dict(settings).items() if option not in NOT_OF_A_RUN}
        record = {"settings": kept, "measures": measures}
        write_atomic(_measures_file(settings.out), json.dumps(record, indent=1).encode())
        return measures

    def _make_stills(self, seed: int) -> Path:
        """StillMix's bank: the stills that a network of single frames is surest about, with the published constants."""
        reference = self.settings("reference", demo_reference(), seed)
        train(reference)
        size = reference.clip.size
        bank = StillBankConfig(
            data=reference.data,
            out=self.of_seed(seed) / STILLS,
            reference=reference.out,
            size=size,
            seed=seed,
            device=self.device,
        )
        return build_still_bank(bank)


def _measures_file(run_folder: Path) -> Path:
    return run_folder.with_name(f"{run_folder.name}.json")
