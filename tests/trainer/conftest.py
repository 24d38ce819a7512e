"""Keeps the threads of the tests of this folder few, and makes a dataset whose samples have names."""

import dataclasses

import numpy as np
import pytest
import torch
from synthetic_run import SAMPLES, make_dataset

from unstill.pipeline.shards.index import INDEX_NAME, SampleIndex


@pytest.fixture
def one_thread():
    """Tiny networks are faster without a thread pool, and sums are then in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def named_data(tmp_path):
    """Folder of an index of 24 samples, v00 to v23, without videos."""
    folder = make_dataset(tmp_path / "data")
    keys = "".join(f"v{n:02}" for n in range(SAMPLES)).encode()
    names = {"key_text": np.frombuffer(keys, "u1"), "key_end": 3 * np.arange(1, SAMPLES + 1)}
    # under another name first: the loaded index is a map of the file
    dataclasses.replace(SampleIndex.load(folder), **names).save(folder / "named")
    (folder / "named").replace(folder / INDEX_NAME)
    assert SampleIndex.load(folder).key(3) == "v03"
    return folder
