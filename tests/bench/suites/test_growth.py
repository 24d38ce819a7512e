"""The cost of opening a dataset must not grow with it: the index is mapped, the shuffle is computed, not stored."""

import numpy as np

from unstill.bench.suites.growth import synthetic_index
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from unstill.pipeline.shards.index import SampleIndex


def test_drawing_touches_no_more_of_a_larger_index(tmp_path):
    draws = []
    for samples in (1_000, 100_000):
        synthetic_index(samples).save(tmp_path / "index.safetensors")
        index = SampleIndex.load(tmp_path)
        assert isinstance(index.fragment_end.base, np.ndarray)  # a view of the file, not a copy
        draws.append(TrainSampler(index, ClipConfig(), AugmentConfig(), 0).draw(np.arange(64)))
        assert draws[-1].sample.max() < samples
    assert len(np.unique(draws[1].sample)) == 64  # a permutation: no sample twice
