"""A damaged clip never ends a run, never passes silently, and is replaced by the same clip everywhere."""

import csv
import io
import logging
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.codec_support import DecoderChoice
from unstill.pipeline.loading.decode import ClipDecoder
from unstill.pipeline.loading.decoders import DecoderMaker
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig, ViewConfig
from unstill.pipeline.shards.fragments import fragment_table
from unstill.pipeline.shards.index import SampleIndex

CLIP = ClipConfig(frames=6, stride=2, size=32)
TOLERANT = LoaderConfig(max_bad_fraction=0.5)
STEPS, BATCH = 6, 5


def run(root, steps=STEPS, config=TOLERANT, device="cpu", **options):
    options = {"batch_size": BATCH, "augment": AugmentConfig(), "steps": steps} | options
    with ClipLoader(root, clip=CLIP, device=device, config=config, **options) as loader:
        return list(loader), loader


def flip_bytes(root: Path, sample: int, at: float = 0.6, count: int = 8) -> None:
    """Damage a sample in its shard, where it is on disk."""
    index = SampleIndex.load(root)
    with open(root / index.shard_names[int(index.shard[sample])], "r+b") as file:
        file.seek(int(index.mp4_offset[sample]) + int(at * int(index.mp4_bytes[sample])))
        data = file.read(count)
        file.seek(-count, io.SEEK_CUR)
        file.write(bytes(byte ^ 0xFF for byte in data))


def substitutes_of(loader, position: int, bad: set[int]) -> int:
    """The sample that must stand in for a bad one: the first good one among the attempts at its position."""
    for attempt in range(1, 16):
        sample = int(loader._sampler.draw(np.array([position]), attempt).sample[0])
        if sample not in bad:
            return sample
    raise AssertionError


def assert_replaced(clips, loader, bad: set[int]) -> None:
    """No bad sample is delivered, each is replaced as the contract says, and all other clips are untouched."""
    for batch in clips:
        wanted = loader._sampler.draw(batch.position.numpy()).sample
        for row, (sample, position) in enumerate(zip(wanted.tolist(), batch.position.tolist(), strict=True)):
            if sample in bad:
                sample = substitutes_of(loader, position, bad)
            assert int(batch.sample[row]) == sample


def assert_equal(a, b) -> None:
    assert len(a) == len(b)
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.sample, y.sample) and torch.equal(x.frames, y.frames) and torch.equal(x.draws, y.draws)


@pytest.fixture
def copy(small_dataset, tmp_path) -> Path:
    """A dataset that may be damaged."""
    return shutil.copytree(small_dataset, tmp_path / "copy")


def whole_file(data: bytes) -> tuple[int, np.ndarray]:
    """A fragment table that calls the whole file one fragment behind a header of 16 bytes (or as many as there are)."""
    header = min(16, len(data) - 1)
    return header, np.array([header, len(data)])


def audio_only() -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def broken_videos(video) -> dict[str, object]:
    """Samples that a faulty converter could have written: their CRC-32 is right, their content is not."""
    good = video(frames=12, gop=6)

    def blessed(data: bytes):
        return type(good)(data, "vp9", 12, 64, 96, 12, table=whole_file(data))

    init, offsets = fragment_table(good.mp4)
    zeroed = bytearray(good.mp4)
    zeroed[init + 200 :] = bytes(len(zeroed) - init - 200)
    h264 = video(frames=12, gop=6, codec="h264")
    too_few = video(frames=7, gop=12)
    return {
        "one byte": blessed(b"\0\0"),
        "random": blessed(np.random.default_rng(0).bytes(5000)),
        "html": blessed(b"<html><body>404 Not Found</body></html>" * 20),
        "audio only": blessed(audio_only()),
        "header without frames": blessed(good.mp4[:init]),
        "truncated": blessed(good.mp4[: init + (int(offsets[1]) - init) // 2]),
        "zeros for frames": blessed(bytes(zeroed)),
        "h264 in a vp9 dataset": blessed(h264.mp4),
        "fewer frames than the index says": type(good)(
            too_few.mp4, "vp9", 12, 64, 96, 12, table=fragment_table(too_few.mp4)
        ),
    }


BROKEN = [
    "one byte",
    "random",
    "html",
    "audio only",
    "header without frames",
    "truncated",
    "zeros for frames",
    "h264 in a vp9 dataset",
    "fewer frames than the index says",
]


@pytest.mark.parametrize("kind", BROKEN)
def test_a_clip_that_does_not_decode_is_replaced(each_decoder, tmp_path, video, dataset, kind):
    good = [video(frames=12, gop=6, seed=n) for n in range(7)]
    root = dataset(tmp_path / "data", [*good[:3], broken_videos(video)[kind], *good[3:]])
    clip = ClipConfig(frames=6, stride=2, size=32)  # 11 frames of 12: every start touches the end
    with ClipLoader(
        root, clip=clip, augment=AugmentConfig(), batch_size=BATCH, steps=STEPS, device="cpu", config=TOLERANT
    ) as loader:
        clips = list(loader)
    assert_replaced(clips, loader, {3})
    assert loader.bad.samples == {3} and loader.stats.bad_clips >= 3  # eight samples, thirty clips


def test_damaged_bytes_are_replaced_named_and_written_down(each_decoder, copy, small_dataset, tmp_path, caplog):
    clean, _ = run(small_dataset)
    for sample in (2, 7):
        flip_bytes(copy, sample, at=0.05)  # the header: every clip of the sample is bad
    with caplog.at_level(logging.WARNING):
        clips, loader = run(copy, bad_clips=tmp_path / "run" / "bad_clips.csv")
    assert_replaced(clips, loader, {2, 7})
    for before, after in zip(clean, clips, strict=True):
        untouched = before.sample == after.sample
        assert torch.equal(before.frames[untouched], after.frames[untouched])
    with open(tmp_path / "run" / "bad_clips.csv") as file:
        rows = list(csv.DictReader(file))
    assert {row["key"] for row in rows} == {"video_2", "video_7"} and len(rows) == 2
    assert all("CRC-32 of its header" in row["reason"] and row["shard"].startswith("shards/") for row in rows)
    assert "video_2" in caplog.text and "video_7" in caplog.text


@pytest.mark.slow
def test_damage_in_one_gop_hits_only_the_clips_that_touch_it(copy, small_dataset):
    flip_bytes(copy, 9, at=0.97)  # the last GOP of a video of 35 frames
    clean, _ = run(small_dataset, steps=40)
    damaged, loader = run(copy, steps=40)
    changed = [
        int(start)
        for before, after in zip(clean, damaged, strict=True)
        for start, sample, now in zip(before.start_frame, before.sample, after.sample, strict=True)
        if sample == 9 and now != 9
    ]
    kept = [
        int(s) for batch in damaged for s, sample in zip(batch.start_frame, batch.sample, strict=True) if sample == 9
    ]
    assert changed and kept
    assert min(changed) + 10 >= 30 and max(kept) + 10 < 30  # the last GOP holds frames 30 to 34
    assert loader.bad.samples == {9}


def test_every_rank_and_every_restart_sees_the_same_substitutes(each_decoder, copy):
    for sample in (1, 4, 8):
        flip_bytes(copy, sample, at=0.05)
    alone, _ = run(copy, batch_size=6)
    ranks = [run(copy, batch_size=6, rank=rank, world_size=2)[0] for rank in range(2)]
    for step, batch in enumerate(alone):
        assert torch.equal(batch.frames, torch.cat([rank[step].frames for rank in ranks]))
        assert torch.equal(batch.sample, torch.cat([rank[step].sample for rank in ranks]))
    assert_equal(alone[2:], run(copy, batch_size=6, start_step=2, steps=STEPS - 2)[0])


def test_damage_while_the_run_goes_on(each_decoder, copy):
    """The shards are damaged after the loader has opened them and has delivered from them."""
    with ClipLoader(
        copy, clip=CLIP, augment=AugmentConfig(), batch_size=BATCH, device="cpu", config=TOLERANT, steps=40
    ) as loader:
        before = [next(loader) for _ in range(2)]
        flip_bytes(copy, 5, at=0.05)
        after = list(loader)
    assert 5 in loader.bad.samples and len(before) + len(after) == 40
    # once the damage is there a fresh run makes the same choice
    fresh, _ = run(copy, start_step=30, steps=10)
    assert_equal(fresh, after[-10:])


def test_a_shard_cut_short_while_the_run_goes_on(each_decoder, copy):
    with ClipLoader(
        copy, clip=CLIP, augment=AugmentConfig(), batch_size=BATCH, device="cpu", config=TOLERANT, steps=40
    ) as loader:
        next(loader)
        last = loader.index.shard_names[-1]
        with open(copy / last, "r+b") as file:
            file.truncate(700)
        assert len(list(loader)) == 39
    assert loader.bad.samples == set(np.flatnonzero(np.asarray(loader.index.shard) == 2).tolist())


def test_too_many_bad_samples_stop_the_run(copy, tmp_path):
    for sample in range(3):
        flip_bytes(copy, sample, at=0.05)
    with pytest.raises(InputError, match=r"2 of 10 samples are bad.*max_bad_fraction = 0.1.*bad_clips.csv"):
        run(copy, steps=60, config=LoaderConfig(max_bad_fraction=0.1), bad_clips=tmp_path / "bad_clips.csv")


def test_nothing_but_bad_samples_stops_the_run(copy):
    for sample in range(10):
        flip_bytes(copy, sample, at=0.05)
    with pytest.raises(InputError, match=r"16 clips in a row were bad|of 10 samples are bad"):
        run(copy, config=LoaderConfig(max_bad_fraction=1.0))


def test_an_evaluation_does_not_shrink_silently(each_decoder, copy):
    flip_bytes(copy, 4, at=0.05)
    with pytest.raises(InputError, match="1 of 10 samples are bad, the last one video_4"):
        run(copy, augment=None, views=ViewConfig(), steps=None, config=None)
    clips, loader = run(copy, augment=None, views=ViewConfig(temporal=2), steps=None)
    assert torch.cat([batch.sample for batch in clips]).tolist() == [n // 2 for n in range(20) if n // 2 != 4]
    assert loader.bad.samples == {4}


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_a_codec_without_a_decoder_is_refused_at_the_start(tmp_path, video, dataset, codec):
    root = dataset(tmp_path / "data", [video(frames=6, codec=codec)])
    both_remedies = "--loader.decoder cores.*--codec vp9"
    for name in ("dali", "both"):
        with pytest.raises(InputError, match=f"videos are {codec}, which DALI cannot decode on cpu; .*{both_remedies}"):
            run(root, config=LoaderConfig(decoder=name))


@pytest.mark.parametrize(("decoder", "by"), [("auto", "DALI"), ("cores", "libavcodec")])
def test_a_codec_that_always_fails_is_not_taken_for_damage(tmp_path, video, dataset, decoder, by):
    """The index says VP9, every file is H.264: the codec is refused, no sample is called bad."""
    samples = [video(frames=6, codec="h264", seed=n) for n in range(4)]
    for sample in samples:
        sample.codec = "vp9"
    with pytest.raises(InputError, match=f"videos are vp9, which {by} cannot decode on cpu"):
        run(dataset(tmp_path / "data", samples), config=LoaderConfig(decoder=decoder))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: (root / "shards/00001.tar").unlink(), "00001.tar: the shard cannot be read"),
        (lambda root: (root / "shards/00000.tar").write_bytes(b"x" * 512), "00000.tar: the shard is truncated"),
        (lambda root: (root / "index.safetensors").unlink(), "no index found"),
        (lambda root: (root / "index.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{}"), "not an index"),
    ],
)
def test_a_damaged_dataset_is_refused_at_the_start(copy, damage, message):
    damage(copy)
    with pytest.raises(InputError, match=message):
        run(copy)


def test_a_pipeline_that_dies_is_rebuilt_at_the_same_position(small_dataset, monkeypatch):
    clean, _ = run(small_dataset, steps=10)
    collect, calls = ClipDecoder.collect, []

    def dies(decoder, stream=None):
        calls.append(decoder)
        if len([d for d in calls if d is calls[0]]) >= 4 and decoder is calls[0]:
            raise RuntimeError("Critical error in pipeline: Current pipeline object is no longer valid.")
        return collect(decoder, stream)

    monkeypatch.setattr(ClipDecoder, "collect", dies)
    first = LoaderConfig(max_bad_fraction=0.0)
    monkeypatch.setattr("unstill.pipeline.loading.loader.choose_decoder", lambda *_: DecoderChoice("dali", "", None))
    clips, loader = run(small_dataset, steps=10, config=first)
    assert_equal(clean, clips)
    assert loader.stats.rebuilds == 1 and loader.bad.clips == 0


def test_a_decoder_that_fails_altogether_is_not_taken_for_damage(small_dataset, monkeypatch):
    def fails(*_):
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with ClipLoader(
        small_dataset, clip=CLIP, augment=AugmentConfig(), batch_size=BATCH, device="cpu", config=TOLERANT
    ) as loader:
        monkeypatch.setattr(ClipDecoder, "collect", fails)
        monkeypatch.setattr(DecoderMaker, "alone", fails)
        with pytest.raises(RuntimeError, match="fails on clips that it decoded before"):
            list(loader)
    assert loader.bad.clips == 0


@pytest.mark.slow
@pytest.mark.parametrize("each_decoder", ["dali", "cores"], indirect=True)  # grouped: on a GPU, below
def test_memory_stays_flat_over_many_batches_and_rebuilds(each_decoder, tmp_path, video, dataset):
    root = dataset(tmp_path / "data", [video(frames=4, height=32, width=32, gop=4, seed=n) for n in range(4)])
    clip = ClipConfig(frames=4, stride=1, size=16)

    def batches(steps: int) -> None:
        with ClipLoader(root, clip=clip, augment=AugmentConfig(), batch_size=2, steps=steps, device="cpu") as loader:
            assert sum(len(clips) for clips in loader) == 2 * steps

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    batches(100)
    for _ in range(5):
        batches(2)
    before = resident()
    batches(2000)
    for _ in range(50):
        batches(2)
    assert resident() - before < 16e6  # a leak of one clip a batch would be 25 MB, of one pipeline a rebuild more


@pytest.mark.gpu
def test_damage_on_the_gpu(tmp_path, gpu_video, dataset):
    """NVDEC: a clip that does not decode costs one substitute, and the run goes on."""
    good = [gpu_video(frames=12, seed=n) for n in range(7)]
    init, offsets = fragment_table(good[0].mp4)
    zeroed = good[0].mp4[: init + 200] + bytes(len(good[0].mp4) - init - 200)
    bad = replace(good[0], mp4=zeroed, table=(init, offsets))
    root = dataset(tmp_path / "data", [*good[:3], bad, *good[3:]])
    clips, loader = run(root, device="cuda")
    assert len(clips) == STEPS and loader.bad.samples == {3}
    assert all(3 not in batch.sample.tolist() for batch in clips)
    assert_equal(clips[3:], run(root, device="cuda", start_step=3, steps=STEPS - 3)[0])


@pytest.mark.gpu
def test_gpu_memory_stays_flat_over_rebuilds(tmp_path, gpu_video, dataset):
    root = dataset(tmp_path / "data", [gpu_video(frames=12, seed=n) for n in range(4)])
    run(root, steps=20, device="cuda")
    before = torch.cuda.mem_get_info()[0]
    for _ in range(20):
        run(root, steps=5, device="cuda")
    assert before - torch.cuda.mem_get_info()[0] < 64e6


@pytest.mark.gpu
def test_a_process_that_decoded_on_a_gpu_ends_with_its_own_code(tmp_path, gpu_video, dataset):
    root = dataset(tmp_path / "data", [gpu_video(frames=12, seed=n) for n in range(4)])
    program = f"""
from unstill.trainer.cli.leaving import leave_with_code_of
def decode():
    from unstill import AugmentConfig, ClipConfig, ClipLoader
    clip = ClipConfig(frames=4, stride=1, size=32)
    loader = ClipLoader({str(root)!r}, clip=clip, batch_size=2, augment=AugmentConfig(), steps=2, device="cuda")
    print(len(list(loader)))
    return 75
leave_with_code_of(decode)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=1200, check=False)
    assert (done.returncode, done.stdout) == (75, "2\n"), done.stderr[-500:]
