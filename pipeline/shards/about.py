"""What a dataset says of one of its samples: the content of KEY.json."""

from pathlib import Path

from ..bounded_files import parse_json
from ..errors import InputError
from .index import SampleIndex
from .reader import BLOCK, Malformed, members, read_member

_MOST_BYTES = 1 << 20


def about_sample(dataset: Path, index: SampleIndex, row: int) -> dict:
    """The JSON of one sample: source, original size, notes.

    Args:
        dataset: folder made by ``unstill convert``, on this machine.
        index: its index.
        row: of the sample.

    Raises:
        InputError: the shard cannot be read, or the sample is not where the index says.
    """
    path, key = dataset / index.shard_names[int(index.shard[row])], index.key(row)
    try:
        with open(path, "rb") as file:
            # KEY.mp4 is the first member of the sample; its header is the block before
            for member in members(file, start=int(index.mp4_offset[row]) - BLOCK):
                if member.key != key:
                    break
                if member.extension == "json" and member.size <= _MOST_BYTES:
                    return dict(parse_json(read_member(file, member).decode()))
    except (OSError, Malformed, ValueError, TypeError) as error:
        raise InputError(f"{path}: not readable ({error}); run `unstill verify {dataset}`") from None
    raise InputError(f"{path}: no {key}.json after {key}.mp4; run `unstill verify {dataset}`")
