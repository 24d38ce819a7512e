"""Shards open unchanged in the two libraries that read WebDataset tars, and GOPs decode there as they do in PyAV."""

import io
import json
from pathlib import Path

import av
import numpy as np
import nvidia.dali as dali
import wds2idx
import webdataset
from nvidia.dali import fn, pipeline_def, types

from unstill.pipeline.shards.index import SampleIndex


def shards(converted: Path) -> list[str]:
    return [str(converted / name) for name in SampleIndex.load(converted).shard_names]


def frames_of(mp4: bytes) -> np.ndarray:
    with av.open(io.BytesIO(mp4)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_webdataset_reads_the_shards(converted):
    index = SampleIndex.load(converted)
    samples = list(webdataset.WebDataset(shards(converted), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == index.keys()
    for row, sample in enumerate(samples):
        table = np.frombuffer(sample["gops"], "<i4")
        about = json.loads(sample["json"])
        assert int(sample["cls"]) == table[2] == about["label"] == index.label[row]
        assert len(frames_of(sample["mp4"])) == table[0] == about["frames"] == index.frames[row]


def test_the_index_is_the_one_that_dali_would_write(converted, tmp_path):
    for shard in shards(converted):
        with wds2idx.IndexCreator(shard, str(tmp_path / "made.idx"), verbose=False) as creator:
            creator.create_index()
        assert (tmp_path / "made.idx").read_text() == Path(shard).with_suffix(".idx").read_text()


@pipeline_def(batch_size=1, num_threads=1, device_id=None)
def cut_out_gops(tars: list[str], first: int):
    """Frames from GOP ``first`` to the end, decoded from header + fragments alone."""
    video, table, label = fn.readers.webdataset(
        paths=tars,
        index_paths=[tar.replace(".tar", ".idx") for tar in tars],
        ext=["mp4", "gops", "cls"],
        dtypes=[types.UINT8, types.INT32, types.UINT8],
        missing_component_behavior="error",
    )
    gops = fn.cat(video[0 : table[4]], video[table[5 + first] :], axis=0)
    clip = fn.decoders.video(gops, device="cpu", sequence_length=dali.math.min(table[0], 1000), pad_mode="none")
    return clip, table, label


def test_dali_reads_the_shards_and_decodes_from_any_gop(converted):
    index = SampleIndex.load(converted)
    samples = {s["__key__"]: s for s in webdataset.WebDataset(shards(converted), shardshuffle=False)}
    whole: dict[str, np.ndarray] = {}
    for first in (0, 1):
        pipe = cut_out_gops(shards(converted), first)
        pipe.build()
        for row, key in enumerate(index.keys()):
            clip, table, label = (np.array(output[0]) for output in pipe.run())
            assert label.tobytes() == b"%d" % index.label[row]
            want = frames_of(samples[key]["mp4"])[first * int(table[3]) :]
            np.testing.assert_array_equal(clip, whole.setdefault(key, clip)[-len(clip) :])
            assert clip.shape == want.shape
            # compared by luma: the two interpolate chroma differently
            error = np.abs(luma(clip) - luma(want)).mean()
            assert error < 1.5
            if len(clip) > 1:
                assert np.abs(luma(clip[:-1]) - luma(want[1:])).mean() > 2 * error


def luma(rgb: np.ndarray) -> np.ndarray:
    return rgb @ np.array([0.299, 0.587, 0.114])
