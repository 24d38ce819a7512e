"""``--loader.isolate``: a decoder that dies costs its clip at most; a record names what a dead process decoded."""

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.decoders import DecoderMaker
from unstill.pipeline.loading.encoded_batch import EncodedBatch
from unstill.pipeline.loading.in_flight import LIST_NAME, InFlight, read_left_out
from unstill.pipeline.loading.isolated_decoder import ChildDecoders, Isolation
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig
from unstill.pipeline.shards.index import SampleIndex
from unstill.pipeline.shards.sample_table import TrackHeader

CLIP = ClipConfig(frames=6, stride=2, size=32)
# imported by every Python below it: a decoder that dies of pictures of 80x64
DIES = """
import signal
from unstill.pipeline.loading import frame_decoder
clip = frame_decoder.KeptDecoders.clip
def dies(self, codec, mp4, table, frames, picture, *rest):
    if picture == (80, 64):
        signal.raise_signal(signal.{signal})
    clip(self, codec, mp4, table, frames, picture, *rest)
frame_decoder.KeptDecoders.clip = dies
"""


def run(root: Path, steps: int = 6, **options):
    config = LoaderConfig(**{"decoder": "cores", "core_threads": 2, "max_bad_fraction": 0.2} | options)
    with ClipLoader(
        root, clip=CLIP, batch_size=5, augment=AugmentConfig(), device="cpu", steps=steps, config=config
    ) as loader:
        return list(loader), loader


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["SIGSEGV", "SIGABRT"])
def test_a_child_that_dies_of_a_clip_costs_this_clip(tmp_path, video, dataset, monkeypatch, kind):
    root = dataset(tmp_path / "data", [video(frames=12, seed=n, width=80 if n == 3 else 96) for n in range(8)])
    clean, _ = run(root)
    assert any(3 in batch.sample.tolist() for batch in clean)
    (tmp_path / "python").mkdir()
    (tmp_path / "python" / "sitecustomize.py").write_text(DIES.format(signal=kind))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "python"))
    clips, loader = run(root, isolate=True)
    assert loader.bad.samples == {3}
    for before, after in zip(clean, clips, strict=True):
        assert 3 not in after.sample.tolist()
        kept = before.sample != 3
        assert torch.equal(before.sample[kept], after.sample[kept])
        assert torch.equal(before.frames[kept], after.frames[kept])
    with pytest.raises(InputError, match=f"the decoder died of {kind}"):
        run(root, isolate=True, max_bad_fraction=0.0)


def children() -> list[int]:
    """Process ids of the children of this process that decode clips."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == os.getpid() and b"decoding_child" in (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.slow
def test_children_that_others_kill_cost_nothing(small_dataset, monkeypatch):
    """Each clip loses its first child at most: one whose second child dies, too, is bad by definition."""
    clean, _ = run(small_dataset, steps=30, max_bad_fraction=0.0)
    killed, spared, stop, second_try, alone = [], set(), threading.Event(), threading.Lock(), DecoderMaker.alone

    def spare(decoders: DecoderMaker, clip: EncodedBatch) -> torch.Tensor:
        with second_try:
            frames = alone(decoders, clip)
            made = decoders._alone_in_a_child._made
            spared.update(child.pid for child in made if isinstance(child, ChildDecoders))
            return frames

    def kill() -> None:
        while len(killed) < 6 and not stop.wait(0.05):
            with second_try:
                for pid in {*children()} - spared:
                    os.kill(pid, signal.SIGSEGV if len(killed) % 2 else signal.SIGKILL)
                    killed.append(pid)

    monkeypatch.setattr(DecoderMaker, "alone", spare)

    config = LoaderConfig(isolate=True, core_threads=2, max_bad_fraction=0.0)
    thread = threading.Thread(target=kill)
    clips = []
    with ClipLoader(
        small_dataset, clip=CLIP, batch_size=5, augment=AugmentConfig(), device="cpu", steps=30, config=config
    ) as loader:
        clips.append(next(loader))
        thread.start()
        clips += loader
        stop.set()
        thread.join()
    assert killed and loader.bad.clips == 0 and not children()
    for before, after in zip(clean, clips, strict=True):
        assert torch.equal(before.frames, after.frames) and torch.equal(before.sample, after.sample)


def test_children_that_die_all_the_time_stop_the_run():
    isolation = Isolation()
    with pytest.raises(InputError, match=r"33 decoding processes died on 33 clips.*memory is short"):
        for _ in range(100):
            isolation.count(died=True)
    isolation = Isolation()
    for clip in range(100_000):
        isolation.count(died=clip % 150 == 0)  # fewer than one in a hundred: damaged clips of a large dataset


def test_what_a_child_may_do_with_the_memory_that_it_shares(small_dataset):
    decoder = Isolation().decoder(8)
    try:
        table = type("Table", (), {"track": TrackHeader(b"\0" * 100, 1, 0, 0), "sizes": [4], "shown": [0]})
        out = np.zeros((1, 8, 8, 3), np.uint8)
        with pytest.raises(RuntimeError):
            decoder.clip("vp9", np.zeros(4, np.uint8), table, np.array([0]), (8, 8), (0, 0, 8, 8), out)
        status = Path(f"/proc/{decoder.pid}/status").read_text()
        assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status
        memory = decoder._frames[0]
        for size in (0, 1 << 20):
            with pytest.raises(PermissionError):  # reading a mapping beyond its end would kill the reader
                os.ftruncate(memory, size)
    finally:
        decoder.close()


def test_dali_is_not_isolated():
    for name in ("dali", "both"):
        with pytest.raises(InputError, match=f"loader.decoder is {name} with loader.isolate, expected cores"):
            LoaderConfig(isolate=True, decoder=name)


def test_a_record_names_what_was_being_decoded(small_dataset, tmp_path, caplog):
    index = SampleIndex.load(small_dataset)
    record = InFlight(tmp_path, index)
    first, second = record.begin(3), record.begin(7)
    record.end(first)
    os.close(record._file)  # as if the process were gone
    record._file = None
    assert second != first  # each clip has a place of its own while it is decoded
    ended_well = InFlight(tmp_path, index)
    assert "while 1 clips were being decoded: video_7" in caplog.text
    listed = tmp_path / LIST_NAME
    assert f"--loader.leave-out {listed}" in caplog.text
    assert listed.read_text() == "video_7\n" and read_left_out(listed, index) == {7}
    ended_well.begin(1)
    ended_well.close()
    caplog.clear()
    InFlight(tmp_path, index).close()
    assert not caplog.text and sorted(p.name for p in tmp_path.iterdir()) == [LIST_NAME]


def test_the_first_rank_names_those_of_ranks_that_are_no_more(small_dataset, tmp_path, caplog):
    index = SampleIndex.load(small_dataset)
    for rank in range(3):
        InFlight(tmp_path, index, rank, 3).begin(rank)
    InFlight(tmp_path, index, 0, 2).close()
    assert "video_0, video_2" in caplog.text and "video_1" not in caplog.text
    InFlight(tmp_path, index, 1, 2).close()
    assert (tmp_path / LIST_NAME).read_text() == "video_0\nvideo_2\nvideo_1\n"


@pytest.mark.parametrize("damage", ["another dataset", "cut", "empty", "noise"])
def test_a_record_that_is_not_ours_says_nothing(small_dataset, tmp_path, dataset, video, caplog, damage):
    index = SampleIndex.load(small_dataset)
    record = InFlight(tmp_path, index)
    record.begin(5)
    path = tmp_path / "decoding-rank0.bin"
    data = path.read_bytes()
    if damage == "another dataset":
        index = SampleIndex.load(dataset(tmp_path / "data", [video(frames=6)]))
    else:
        path.write_bytes({"cut": data[:17], "empty": b"", "noise": np.random.default_rng(0).bytes(len(data))}[damage])
    InFlight(tmp_path, index).close()
    assert not caplog.text


def test_samples_that_are_left_out_are_replaced_and_do_not_count_as_bad(each_decoder, small_dataset, tmp_path):
    listed = tmp_path / "list.txt"
    listed.write_text("video_2\nvideo_5\nof another dataset\n")
    clean, _ = run(small_dataset, decoder="auto", max_bad_fraction=0.0)
    clips, loader = run(small_dataset, decoder="auto", max_bad_fraction=0.0, leave_out=listed)
    assert any({2, 5} & {*batch.sample.tolist()} for batch in clean)
    for before, after in zip(clean, clips, strict=True):
        assert not {2, 5} & {*after.sample.tolist()}
        kept = (before.sample != 2) & (before.sample != 5)
        assert torch.equal(before.frames[kept], after.frames[kept])
    assert loader.bad.samples == {2, 5}
    with pytest.raises(InputError, match=r"leave-out .*none.txt: cannot be read"):
        run(small_dataset, leave_out=tmp_path / "none.txt")


def test_what_dali_decodes_is_recorded_and_the_record_is_gone_after_it(small_dataset, tmp_path):
    with ClipLoader(
        small_dataset, clip=CLIP, batch_size=5, augment=AugmentConfig(), device="cpu", steps=9, run=tmp_path
    ) as loader:
        assert loader.decoder.name == "dali"
        next(loader)
        record = np.fromfile(tmp_path / "decoding-rank0.bin", "<i8")[3:]
        assert ((record >= 0) & (record <= 10)).all()
        marked = set()
        for batch in loader:
            marked |= {*(np.fromfile(tmp_path / "decoding-rank0.bin", "<i8")[3:] - 1).tolist()} - {-1}
            del batch
    assert marked and not list(tmp_path.iterdir())


def test_child_decoders_are_of_the_kind_that_the_cores_use():
    assert isinstance(Isolation().decoder(8), ChildDecoders)
