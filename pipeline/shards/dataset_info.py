"""What a run must know of its dataset before it starts."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..bounded_files import read_bounded
from ..errors import InputError
from .index import INDEX_NAME, SampleIndex

_MOST_BYTES = 64 << 30  # of an index without a manifest


@dataclass(frozen=True)
class DatasetInfo:
    """Attributes:
    samples: number of videos.
    classes: class names, in label order.
    digest: sha256 of the manifest, which names every shard with its own: another digest is another dataset.
    """

    samples: int
    classes: tuple[str, ...]
    digest: str

    @classmethod
    def read(cls, folder: Path) -> "DatasetInfo":
        """Read them from a dataset folder.

        Raises:
            InputError: no dataset there, or none that can be trained on.
        """
        index = SampleIndex.load(folder)
        if len(index) == 0:
            raise InputError(f"{folder}: the dataset holds no samples; see quarantine.csv next to it for the reasons")
        if len(index.classes) < 2:
            raise InputError(f"{folder}: the dataset has {len(index.classes)} class; a classifier needs at least 2")
        manifest = folder / "dataset.json"
        source = manifest if manifest.exists() else folder / INDEX_NAME
        return cls(len(index), index.classes, hashlib.sha256(read_bounded(source, _MOST_BYTES)).hexdigest())
