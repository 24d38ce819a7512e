"""What the file of each video is called."""

import re
from typing import Literal

from ....pipeline.errors import InputError
from ....pipeline.safe_text import printable
from ....pipeline.shards.index import SampleIndex

Names = Literal["key", "video"]


def file_names(index: SampleIndex, names: Names) -> list[str]:
    """N names without suffix, in row order.

    Args:
        index: the dataset.
        names: key: the sample's key, ``<class>_<video>`` for a video in a class folder. video: without the class.

    Raises:
        InputError: two videos would have one name, or a key is no file name.
    """
    found = index.keys()
    if names == "video":
        classes = [re.sub(r"[^A-Za-z0-9_-]", "_", name) + "_" for name in index.classes]
        labels = index.label.tolist()
        found = [
            key.removeprefix(classes[label]) if 0 <= label < len(classes) else key
            for key, label in zip(found, labels, strict=True)
        ]
    wrong = next((name for name in found if not re.fullmatch(r"[A-Za-z0-9_-][A-Za-z0-9_.-]*", name)), None)
    if wrong is not None:
        raise InputError(f"video {printable(wrong)!r}: its key cannot be a file name; convert the dataset again")
    if len(set(found)) < len(found):
        twice = next(name for n, name in enumerate(found) if name in found[:n])
        raise InputError(f"two videos are called {twice}; give --names key")
    return found
