"""An untrusted index cannot send the reader to the wrong place."""

from dataclasses import replace

import numpy as np
import pytest

from unstill.pipeline.errors import InputError
from unstill.pipeline.shards.index import INDEX_NAME, SampleIndex
from unstill.pipeline.shards.index_check import check_index, check_shards


def changed(index: SampleIndex, name: str, row: int, value: int) -> SampleIndex:
    column = np.array(getattr(index, name))
    column[row] = value
    return replace(index, **{name: column})


def test_a_good_index_passes(small_dataset):
    index = SampleIndex.load(small_dataset)
    check_index(index, small_dataset)
    check_shards(index, small_dataset)


@pytest.mark.parametrize(
    ("name", "row", "value"),
    [
        ("frames", 3, 0),
        ("frames", 3, 900),
        ("gop", 0, 0),
        ("gop", 9, 1),
        ("width", 0, 0),
        ("label", 2, 4),
        ("label", 2, -1),
        ("shard", 1, 3),
        ("shard", 1, -1),
        ("mp4_offset", 1, -5),
        ("mp4_bytes", 4, 10),
        ("init_bytes", 4, 10**6),
        ("fragment_row", 5, 10**6),
        ("fragment_row", 5, 0),
        ("fragment_end", 3, 10**6),
        ("fragment_end", 0, 1),
        ("key_end", 2, 0),
        ("key_end", 9, 10**6),
    ],
)
def test_contradictions_are_refused(small_dataset, name, row, value):
    with pytest.raises(InputError, match="contradicts itself"):
        check_index(changed(SampleIndex.load(small_dataset), name, row, value), small_dataset)


@pytest.mark.parametrize("name", ["label", "frames", "fragment_crc", "fragment_row", "init_crc"])
def test_columns_of_other_lengths_are_refused(small_dataset, name):
    index = SampleIndex.load(small_dataset)
    with pytest.raises(InputError, match="contradicts itself"):
        check_index(replace(index, **{name: getattr(index, name)[:-1]}), small_dataset)


@pytest.mark.parametrize("shard", ["/etc/passwd", "../other/00000.tar"])
def test_shards_elsewhere_are_refused(small_dataset, shard):
    index = SampleIndex.load(small_dataset)
    with pytest.raises(InputError, match="outside the dataset"):
        check_index(replace(index, shard_names=(shard, *index.shard_names[1:])), small_dataset)


@pytest.mark.parametrize(("offset", "message"), [(10**9, "truncated"), (None, "cannot be read")])
def test_shards_that_are_short_or_missing_are_named(small_dataset, offset, message):
    index = SampleIndex.load(small_dataset)
    if offset is None:
        index = replace(index, shard_names=(*index.shard_names[:-1], "shards/00009.tar"))
    else:
        index = changed(index, "mp4_offset", 9, offset)
    with pytest.raises(InputError, match=message):
        check_shards(index, small_dataset)


def test_a_folder_that_is_no_dataset_is_named_with_the_one_inside(tmp_path):
    (tmp_path / "bias" / "shards").mkdir(parents=True)
    (tmp_path / "bias" / "shards" / INDEX_NAME).write_bytes(b"")
    with pytest.raises(InputError, match=r"bias.*no index found; .*bias/shards is one"):
        SampleIndex.load(tmp_path / "bias")
    with pytest.raises(InputError, match="nowhere: no such folder"):
        SampleIndex.load(tmp_path / "nowhere")


def test_an_index_that_is_cut_short_while_it_is_used_does_no_harm(small_dataset, tmp_path):
    """A mapped file would end the process with SIGBUS."""
    path = tmp_path / "index.safetensors"
    path.write_bytes((small_dataset / "index.safetensors").read_bytes())
    index = SampleIndex.load(path)
    keys = SampleIndex.load(path).keys()
    with open(path, "r+b") as file:
        file.truncate(0)
    assert index.keys() == keys and not index.frames.flags.writeable
    with pytest.raises(InputError, match="no index found"):
        SampleIndex.load(path)
