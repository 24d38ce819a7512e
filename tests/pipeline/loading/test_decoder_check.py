"""`unstill verify --device`: frames that DALI leaves out without an error are found, good ones are not suspected."""

import numpy as np
import torch

from unstill.pipeline.loading.cores_decoder import CoresDecoder
from unstill.pipeline.loading.decode import ClipDecoder, picture_sizes
from unstill.pipeline.loading.decoder_check import SIDE, FrameFault, compare_decoders, differing_frames
from unstill.pipeline.loading.gop_reader import GopReader, shards_in
from unstill.pipeline.shards.index import SampleIndex


class LeavesFramesOut:
    """DALI's decoder, but one frame of one sample keeps what the buffer held before: what NVDEC is expected to do."""

    def __init__(self, decoder: ClipDecoder, sample: int, frame: int):
        self._decoder, self._sample, self._frame, self._rows = decoder, sample, frame, []

    def submit(self, batch):
        r = batch.requests
        at = (r.sample == self._sample) & (r.start_frame <= self._frame)
        at &= self._frame < r.start_frame + batch.frames.shape[1]
        self._rows = [(row, self._frame - int(r.start_frame[row])) for row in np.flatnonzero(at)]
        self._decoder.submit(batch)

    def collect(self, stream=None):
        clips = self._decoder.collect(stream).clone()
        for row, column in self._rows:
            clips[row, column] = clips[row, column - 1]
        return clips


def test_a_frame_left_out_is_named(small_dataset):
    index = SampleIndex.load(small_dataset)
    reader = GopReader(index, shards_in(small_dataset, index))
    dali = ClipDecoder(8, SIDE, torch.device("cpu"), 1, 1, picture_sizes(index))
    cores = CoresDecoder(index, SIDE, torch.device("cpu"), 1)
    found = list(differing_frames(index, reader, LeavesFramesOut(dali, 5, 20), cores))
    cores.close()
    reader.close()
    assert [(fault.shard, fault.key, fault.frames) for fault in found] == [("shards/00001.tar", "video_5", (20, 20))]
    assert str(found[0]).startswith("shards/00001.tar video_5 frame 20: DALI's picture is not libavcodec's")


def test_good_frames_are_not_suspected(tmp_path, dataset, video):
    """Of odd sizes too, whose colour planes the decoders enlarge differently, and with a last GOP of one frame."""
    sizes = ((48, 64), (65, 97), (130, 71))
    samples = [video(frames=13, height=height, width=width, seed=1) for height, width in sizes]
    assert compare_decoders(dataset(tmp_path / "data", samples), "cpu") == []


def test_what_dali_cannot_decode_is_a_fault_of_its_frames(tmp_path, dataset, video):
    samples = [video(seed=seed) for seed in range(3)]
    samples[1].mp4 = _without_pictures(samples[1].mp4)
    found = compare_decoders(dataset(tmp_path / "data", samples), "cpu")
    assert {fault.key for fault in found} == {"video_1"}
    assert all(isinstance(fault, FrameFault) and fault.problem for fault in found)


def _without_pictures(mp4: bytes) -> bytes:
    """The contents of the last fragment are zeros; its checksum, made afterwards, fits."""
    start = mp4.rindex(b"mdat") + 4
    return mp4[:start] + bytes(len(mp4) - start)
