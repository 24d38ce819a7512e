"""What is known of a dataset's videos: a CSV with the column ``key`` and others."""

import csv
from collections.abc import Sequence
from pathlib import Path

from ...pipeline.bounded_files import open_plain
from ...pipeline.errors import InputError


def read_truth(path: Path) -> dict[str, dict[str, str]]:
    """The rows of a CSV by their column ``key``.

    Raises:
        InputError: it is not a CSV, or a key occurs twice.
    """
    rows: dict[str, dict[str, str]] = {}
    try:
        with open(path, newline="", opener=open_plain) as file:
            for row in csv.DictReader(file):
                if row["key"] in rows:
                    raise InputError(f"{path}: key {row['key']!r} occurs twice; every video must be there once")
                rows[row["key"]] = row
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV in UTF-8 ({error}); expected the column key and others") from None
    return rows


def labels_from_csv(path: Path, column: str, classes: Sequence[str]) -> dict[str, int]:
    """Key -> position in ``classes`` of the class that a CSV with the columns ``key`` and ``column`` names.

    Raises:
        InputError: no such file or column, a doubled key, or a name that is no class.
    """
    position = {name: n for n, name in enumerate(classes)}
    try:
        return {key: position[row[column]] for key, row in read_truth(path).items()}
    except OSError as error:
        raise InputError(f"{path}: not readable ({error}); expected a CSV with the columns key and {column}") from None
    except KeyError as error:
        raise InputError(f"{path}: no column or class {error}; expected the columns key and {column}") from None
