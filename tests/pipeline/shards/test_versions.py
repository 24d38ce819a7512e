"""Datasets of version 1, which have one layer of frames and do not say so, stay readable."""

from pathlib import Path

import numpy as np

from unstill.pipeline.conversion.merge import read_dataset
from unstill.pipeline.conversion.verify import verify
from unstill.pipeline.shards.index import SampleIndex
from unstill.pipeline.shards.index_check import check_index

VERSION_1 = Path(__file__).with_name("version_1")  # four videos, made by the last program that wrote this version


def test_a_dataset_of_version_1_is_read_and_verified():
    assert read_dataset(VERSION_1)["version"] == 1
    index = SampleIndex.load(VERSION_1)
    check_index(index, VERSION_1)
    assert np.array_equal(index.layers, [1, 1, 1, 1])
    assert verify(VERSION_1, workers=1) == []


def test_a_new_dataset_says_its_layers(converted, tmp_path):
    index = SampleIndex.load(converted)
    assert read_dataset(converted)["version"] == 2 and (index.layers == 1).all()  # vp9
    index.save(tmp_path / "index.safetensors")
    assert np.array_equal(SampleIndex.load(tmp_path).layers, index.layers)
