"""What a model said about a dataset: keys, labels and logits, checked once, saved and read from any framework.

*.npz   arrays keys (N,) text, labels (N,) int, logits (N,C) float, and optionally classes (C,) text
*.csv   columns key, label, then one logit column a class, whose header is the class name
"""

import csv
import math
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...pipeline.bounded_files import check_plain
from ...pipeline.errors import InputError

# what NumPy, zipfile and csv raise for content that is not what it should be
_UNUSABLE = (
    *(KeyError, IndexError, ValueError, OverflowError, MemoryError, OSError, EOFError, NotImplementedError),
    *(RuntimeError, zipfile.BadZipFile, zlib.error, csv.Error),
)
_MOST_BYTES = 1 << 31  # in one file: the 220,847 videos of Something-Something v2 with float64 logits are 0.31e9


@dataclass(frozen=True)
class Predictions:
    """Logits of N samples over C classes, in any order; samples are identified by key alone.

    Attributes:
        keys: N different names.
        labels: int64 (N,), positions in ``classes``.
        logits: float32 (N, C), all finite; log-probabilities or averaged view probabilities' logs do as well.
        classes: C class names.
        name: which dataset this is, for messages.
        features: float32 (N, D), what the last layer sees, or None where that is not known; not saved.

    Raises:
        InputError: shapes that do not fit, a doubled key, a label that is no class, a logit that is not finite.
    """

    keys: tuple[str, ...]
    labels: np.ndarray
    logits: np.ndarray
    classes: tuple[str, ...] = ()
    name: str = "predictions"
    features: np.ndarray | None = None

    def __post_init__(self) -> None:
        labels, logits = np.asarray(self.labels), np.asarray(self.logits, np.float32)
        if logits.ndim != 2 or not len(self.keys) == len(labels) == len(logits):
            raise InputError(
                f"{self.name}: {len(self.keys)} keys, labels {labels.shape} and logits {logits.shape} do not fit; "
                "expected N keys, N labels and N x C logits"
            )
        if not len(self.keys):
            raise InputError(f"{self.name}: no samples; expected at least one")
        key, count = Counter(self.keys).most_common(1)[0]
        if count > 1:
            raise InputError(f"{self.name}: key {key!r} occurs {count} times; every sample must be there once")
        bad = np.flatnonzero((labels < 0) | (labels >= logits.shape[1]) | (labels != np.round(labels)))
        if len(bad):
            raise InputError(
                f"{self.name}: label {labels[bad[0]]} of key {self.keys[bad[0]]!r} is no class; "
                f"expected 0 to {logits.shape[1] - 1}"
            )
        bad = np.flatnonzero(~np.isfinite(logits).all(1))
        if len(bad):
            raise InputError(f"{self.name}: a logit of key {self.keys[bad[0]]!r} is not finite; check the model")
        classes = self.classes or tuple(str(c) for c in range(logits.shape[1]))
        if len(classes) != logits.shape[1]:
            raise InputError(f"{self.name}: {len(classes)} class names for {logits.shape[1]} logits; give one each")
        for field, value in (("keys", tuple(self.keys)), ("labels", labels.astype(np.int64)), ("logits", logits)):
            object.__setattr__(self, field, value)
        object.__setattr__(self, "classes", tuple(classes))

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def predicted(self) -> np.ndarray:
        """int64 (N,): the class with the highest logit, the first one on a tie."""
        return self.logits.argmax(1)

    def aligned(self, keys: Sequence[str], of: str) -> "Predictions":
        """The same predictions in the order of ``keys``.

        Args:
            keys: different names.
            of: what has these keys, for the message.

        Raises:
            InputError: a key is only on one of the two sides; its name is in the message.
        """
        row = {key: n for n, key in enumerate(self.keys)}
        for key in keys:
            if key not in row:
                raise InputError(f"{self.name}: key {key!r} of {of} is missing; both must hold the same samples")
        if len(keys) != len(self.keys):
            extra = next(iter(row.keys() - set(keys)))
            raise InputError(f"{of}: key {extra!r} of {self.name} is missing; both must hold the same samples")
        order = np.array([row[key] for key in keys])
        return self.rows(order)

    def rows(self, rows: np.ndarray) -> "Predictions":
        """Some samples, by their positions."""
        keys = tuple(self.keys[i] for i in rows)
        features = None if self.features is None else self.features[rows]
        return Predictions(keys, self.labels[rows], self.logits[rows], self.classes, self.name, features)

    def save(self, path: Path) -> None:
        """Write an .npz that ``load`` reads."""
        with open(path, "wb") as file:
            np.savez_compressed(
                file,
                keys=np.array(self.keys),
                labels=self.labels,
                logits=self.logits,
                classes=np.array(self.classes),
            )

    @classmethod
    def load(cls, path: Path) -> "Predictions":
        """Read saved predictions, .npz or .csv.

        Raises:
            InputError: no such file, another format, or contents that do not fit.
        """
        try:
            check_plain(path)
            if path.suffix == ".npz":
                _check_sizes(path)
                with np.load(path, allow_pickle=False) as file:
                    classes = tuple(file["classes"].tolist()) if "classes" in file else ()
                    return cls(tuple(file["keys"].tolist()), file["labels"], file["logits"], classes, path.name)
            if path.suffix == ".csv":
                with open(path, newline="") as file:
                    header, *rows = csv.reader(file)
                if header[:2] != ["key", "label"]:
                    raise InputError(f"{path}: the columns begin {header[:2]}; expected key, label, then the classes")
                keys, labels = tuple(row[0] for row in rows), np.array([int(row[1]) for row in rows], np.int64)
                logits = np.array([[float(v) for v in row[2:]] for row in rows], np.float32)
                return cls(keys, labels, logits.reshape(len(rows), -1), tuple(header[2:]), path.name)
        except FileNotFoundError as error:
            raise InputError(f"{path}: no such file; give saved predictions as .npz or .csv") from error
        except _UNUSABLE as error:
            raise InputError(f"{path}: not saved predictions ({error}); see --help for the format") from error
        raise InputError(f"{path}: unknown kind of file {path.suffix!r}; give .npz or .csv")


def _check_sizes(path: Path) -> None:
    """Read the headers of the arrays before their content, which may be packed a thousand times smaller.

    Raises:
        ValueError: more values than any evaluation has, or more than the file can hold.
    """
    total = 0
    with zipfile.ZipFile(path) as archive:
        for entry in archive.infolist():
            if not entry.filename.endswith(".npy"):
                continue
            with archive.open(entry) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            size = math.prod(shape) * dtype.itemsize
            total += size
            if size > entry.file_size or total > _MOST_BYTES:
                raise ValueError(
                    f"{entry.filename} is an array of {size:,} bytes, more than {_MOST_BYTES:,} or its file"
                )
