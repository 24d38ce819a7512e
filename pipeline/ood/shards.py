"""Composites as shards that a model of another dataset can be tested on: its classes, codec, size and rate."""

from pathlib import Path

from ..conversion.convert import ConversionReport, ConvertConfig, convert
from ..conversion.merge import DATASET_NAME, read_dataset
from ..errors import InputError


def convert_like(videos: Path, out: Path, like: Path, workers: int = 0) -> ConversionReport:
    """Convert a folder of composites.

    Args:
        videos: one folder a class.
        out: the new dataset.
        like: a dataset made by ``unstill convert``, mostly the training set; its label set and recipe are used. Where
            its videos were copied as they are, these are encoded with H.264.
        workers: processes; 0 is one for every core.

    Raises:
        InputError: there is no such dataset, or it does not know one of the classes.
    """
    recipe = dict(model_dataset(like)["settings"]["recipe"])
    if recipe["codec"] == "copy":
        recipe["codec"] = "h264"
    return convert(
        ConvertConfig(
            source=videos,
            out=out,
            classes=like / DATASET_NAME,
            allow_missing=True,  # a benchmark need not have videos of every class
            workers=workers,
            **recipe,
        )
    )


def model_dataset(like: Path) -> dict:
    """What the dataset says of itself.

    Raises:
        InputError: there is no such dataset.
    """
    dataset = read_dataset(like)
    if dataset is None:
        raise InputError(f"{like}: no dataset; expected a folder made by `unstill convert`, mostly the training set")
    return dataset
