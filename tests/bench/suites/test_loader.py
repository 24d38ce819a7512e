"""The loader's benchmark measures what it says: every path delivers the same clips."""

import dataclasses
import functools
import importlib.util
import json

import numpy as np
import pytest
import torch
import tyro

from unstill.bench.harness.loader import cores_paths, on_cores, on_gpu, remote, sweep
from unstill.bench.harness.loader.peers import DECODERS, PeerDataset, WholeFileReader, peer_batches, unavailable
from unstill.bench.harness.loader.turns import through_dali
from unstill.bench.harness.record import ResultFile
from unstill.bench.harness.result_files import read_results
from unstill.bench.harness.synthetic_videos import synthetic_dataset
from unstill.bench.report.figures import figures
from unstill.bench.suites import loader as bench
from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.gop_reader import GopReader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, TrainSampler
from unstill.pipeline.shards.index import SampleIndex


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return synthetic_dataset(folder / "vp9", videos=4, codec="vp9", frames=72, height=64, width=96)


@pytest.mark.parametrize("name", DECODERS)
def test_peers_deliver_the_clips_that_the_loader_delivers(root, name):
    decode = DECODERS[name]
    if reason := unavailable(decode):
        pytest.skip(reason)
    index = SampleIndex.load(root)
    sampler = TrainSampler(index, ClipConfig(frames=5, stride=3, size=48), AugmentConfig(), seed=0)
    at = np.arange(12)
    theirs = torch.cat(list(peer_batches(PeerDataset(root, sampler, at, decode), 4, workers=0))).float()
    for reader in (GopReader, WholeFileReader):
        ours = torch.cat(list(through_dali(index, root, reader, sampler, at))).float()
        assert ours.shape == theirs.shape
        distance = (ours[:, :, None] - theirs[:, None]).abs().mean((3, 4, 5))
        # the right frame is the nearest one; what remains is the colour conversion of swscale's fast path
        assert (distance.argmin(2) == torch.arange(5)).all() and distance.diagonal(dim1=1, dim2=2).max() < 5


@pytest.mark.slow
def test_the_benchmark_writes_its_file(root, tmp_path, monkeypatch):
    small = functools.partial(synthetic_dataset, frames=72, height=64, width=96)
    for module in (bench, on_cores):
        monkeypatch.setattr(module, "synthetic_dataset", small)
    monkeypatch.setattr(bench, "_READS", 50)
    monkeypatch.setattr(cores_paths, "BATCH", 1)
    monkeypatch.setattr(remote, "_BATCH", 4)
    monkeypatch.setattr(remote, "_WARM", 1)
    threads = torch.get_num_threads()
    path = bench.run(bench.LoaderBench(out=tmp_path, videos=root.parent, rounds=1, clips=2, device="cpu"))
    torch.set_num_threads(threads)
    rows = {row["title"]: row for row in json.loads(path.read_text())["rows"]}
    assert {"unstill (GOPs only)", "DALI, whole file", "PyAV + DataLoader", "webdataset + PyAV"} <= rows.keys()
    assert all(row["value"] > 0 for row in rows.values() if "met" in row and row["unit"] != "MB")
    found = {(row.get("at_least"), row.get("at_most")) for row in rows.values() if "met" in row}
    least, most = (1.15, 1.25, 0.8, 1.6, 1.8, 5000.0), (1.25, 1.15, 1.3, 16.0)
    if importlib.util.find_spec("moto") and importlib.util.find_spec("s3fs"):
        least, most = (*least, 0.9), (*most, 1.2)
    assert {*((bar, None) for bar in least), *((None, bar) for bar in most)} <= found


@pytest.mark.slow
def test_every_measurement_of_a_gpu_is_written_and_drawn(tmp_path, monkeypatch):
    """The GPU's path with numbers in the place of its clocks: what is only run there must not fail there first."""
    monkeypatch.setattr(
        on_gpu, "synthetic_dataset", functools.partial(synthetic_dataset, frames=48, height=64, width=96)
    )
    monkeypatch.setattr(on_gpu, "sequential_rate", lambda videos, threads, seconds: (1000.0 * threads, 50.0))
    monkeypatch.setattr(on_gpu, "_raw_videos", lambda count, width: [])
    monkeypatch.setattr(on_gpu, "_wall_rate", lambda batches, seconds: {"clips_per_s": 5.0, "nvdec_percent": None})
    monkeypatch.setattr(on_gpu, "_loader_rate", lambda *_: {"clips_per_s": 20.0, "decoded_frames_per_s": 700.0})
    config = bench.LoaderBench(codecs=("h264", "hevc"), count=2, threads=(7, 14), pipelines=(1, 2))
    results = ResultFile("loader", out=tmp_path)
    on_gpu.on_gpu(config, tmp_path, results)
    (written,) = read_results(tmp_path)
    drawn = {figure.title: figure for figure in figures(written, bench.SECTIONS["loader"])}
    rate = [(bar.group, bar.label, bar.role) for bar in drawn["Delivering random clips to the GPU"].bars]
    assert ("clips of HEVC 32x2", "unstill", "ours") in rate and ("clips of H.264 16x2", "unstill", "ours") in rate
    assert ("clips of H.264 16x2", "PyAV + DataLoader, 16 workers", "peer") in rate
    assert len(drawn["Decoder threads and pipelines"].bars) == 8
    assert {bar.role for bar in drawn["Sequential decoding"].bars} == {"limit"}


@dataclasses.dataclass(frozen=True)
class TrainFlags:
    """The part of `unstill train` that the flags are for."""

    loader: LoaderConfig = dataclasses.field(default_factory=LoaderConfig)


def test_the_best_setting_of_own_shards_is_printed_as_flags(root, tmp_path, monkeypatch, capsys):
    """With rates in the place of the clock: two threads and a queue of three are best."""

    def rate(config, dataset, device, setting):
        if setting.decoder == "dali":
            raise InputError("DALI cannot")
        return 100.0 * (2 if setting.core_threads == 2 else 1) + (50 if setting.depth == 3 else setting.depth)

    monkeypatch.setattr(sweep, "_rate", rate)
    monkeypatch.setattr(sweep, "default_core_threads", lambda device: 1)
    path = bench.run(bench.LoaderBench(out=tmp_path, data=str(root), device="cpu"))
    said = json.loads(path.read_text())["summary"]
    assert said == "best: --loader.decoder cores --loader.core-threads 2 --loader.read-threads 1 --loader.depth 3"
    assert said in capsys.readouterr().out
    config = tyro.cli(TrainFlags, args=said.removeprefix("best: ").split())
    assert config.loader == LoaderConfig(decoder="cores", core_threads=2, read_threads=1, depth=3)


@pytest.mark.slow
def test_the_sweep_measures_real_loaders(root, tmp_path):
    clip = ClipConfig(frames=4, stride=2, size=32)
    path = bench.run(bench.LoaderBench(out=tmp_path, data=str(root), device="cpu", seconds=0.05, clip=clip, batch=4))
    rows = json.loads(path.read_text())["rows"]
    assert len(rows) > 8 and all(row["value"] > 0 for row in rows)
    assert {row["title"].split()[1] for row in rows} == {"dali", "cores"}
