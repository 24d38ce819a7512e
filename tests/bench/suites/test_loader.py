"""The loader's benchmark measures what it says: every path delivers the same clips."""

import functools
import json

import numpy as np
import pytest
import torch

from unstill.bench.harness.loader_peers import DECODERS, PeerDataset, WholeFileReader, peer_batches, unavailable
from unstill.bench.harness.synthetic_videos import synthetic_dataset
from unstill.bench.suites import loader as bench
from unstill.pipeline.loading.gop_reader import GopReader
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from unstill.pipeline.shards.index import SampleIndex


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return synthetic_dataset(folder / "vp9", videos=4, codec="vp9", frames=72, height=64, width=96)


@pytest.mark.parametrize("name", DECODERS)
def test_peers_deliver_the_clips_that_the_loader_delivers(root, name):
    package, decode = DECODERS[name]
    if reason := unavailable(package):
        pytest.skip(reason)
    index = SampleIndex.load(root)
    sampler = TrainSampler(index, ClipConfig(frames=5, stride=3, size=48), AugmentConfig(), seed=0)
    at = np.arange(12)
    theirs = torch.cat(list(peer_batches(PeerDataset(root, sampler, at, decode), 4, workers=0))).float()
    for reader in (GopReader, WholeFileReader):
        ours = torch.cat(list(bench._through_dali(index, root, reader, sampler, at))).float()
        assert ours.shape == theirs.shape
        distance = (ours[:, :, None] - theirs[:, None]).abs().mean((3, 4, 5))
        # the right frame is the nearest one; what remains is the colour conversion of swscale's fast path
        assert (distance.argmin(2) == torch.arange(5)).all() and distance.diagonal(dim1=1, dim2=2).max() < 5


@pytest.mark.slow
def test_the_benchmark_writes_its_file(root, tmp_path, monkeypatch):
    small = functools.partial(synthetic_dataset, frames=72, height=64, width=96)
    monkeypatch.setattr(bench, "synthetic_dataset", small)
    threads = torch.get_num_threads()
    path = bench.run(bench.LoaderBench(out=tmp_path, videos=root.parent, rounds=1, clips=8, device="cpu"))
    torch.set_num_threads(threads)
    rows = {row["title"]: row for row in json.loads(path.read_text())["rows"]}
    assert {"unstill (GOPs only)", "DALI, whole file", "PyAV + DataLoader", "webdataset + PyAV"} <= rows.keys()
    found = [(row.get("at_least"), row.get("at_most")) for row in rows.values() if "met" in row]
    assert found == [(1.8, None), (None, 1.3), (5000.0, None)]
