"""Walking through videos: wanted frames once and in order, equal to the loader's clips, damage named."""

import numpy as np
import pytest

from unstill.pipeline.loading.frame_decoder import KeptDecoders
from unstill.pipeline.loading.frame_walk import BadVideo, FrameWalk, split_by_gops
from unstill.pipeline.loading.gop_reader import GopReader

CENTRE = [(0, 16, 64, 64)]


def test_parts_share_no_gop_and_leave_out_gops_between():
    def parts(numbers, gop, most):
        return [part.tolist() for part in split_by_gops(np.array(numbers, np.int64), gop, most)]

    assert parts(range(10), 3, 6) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9]]
    assert parts([0, 1, 7, 8, 30, 32], 4, 100) == [[0, 1, 7, 8], [30, 32]]  # 7 and 8 lie in neighbouring GOPs
    assert parts([0, 1, 9], 4, 100) == [[0, 1], [9]]
    assert parts(range(8), 6, 3) == [[0, 1, 2, 3, 4, 5], [6, 7]]  # a GOP is never cut
    assert parts([], 4, 8) == []


def test_frames_are_those_of_clips_and_each_gop_is_read_once(dataset, video, tmp_path, monkeypatch):
    folder = dataset(tmp_path / "data", [video(frames=150, gop=7), video(frames=3, seed=1), video(frames=20, seed=2)])
    read = []
    plain = GopReader.read
    monkeypatch.setattr(GopReader, "read", lambda self, s, a, b: (read.append((s, a, b)), plain(self, s, a, b))[1])
    regions = [(0, 0, 64, 64), (0, 15, 64, 64)]
    wanted = {0: np.arange(150), 2: np.array([1, 4]), 1: np.arange(3)}
    with FrameWalk(folder, 32, threads=2) as walk:
        found = {v.sample: list(v.parts) for v in walk.videos(wanted, wanted.__getitem__, lambda _: regions)}
        assert list(found) == [0, 2, 1]
        assert {s: np.concatenate([n for n, _ in found[s]]).tolist() for s in found} == {
            s: n.tolist() for s, n in wanted.items()
        }
        assert sorted(read) == [(0, 0, 9), (0, 9, 18), (0, 18, 22), (1, 0, 1), (2, 0, 1)]
        clip = walk._reader.clip(0, np.array([20, 75, 149]))
        assert clip.table is not None
        frames = np.concatenate([part for _, part in found[0]])
        for place, region in enumerate(regions):
            expected = np.empty((3, 32, 32, 3), np.uint8)
            KeptDecoders(32).clip("vp9", clip.mp4, clip.table, clip.frames, (96, 64), region, expected)
            assert np.array_equal(frames[[20, 75, 149], place], expected)


def test_a_damaged_video_is_named_and_the_others_go_on(dataset, video, tmp_path):
    folder = dataset(tmp_path / "data", [video(frames=200), video(frames=20, seed=1), video(frames=20, seed=2)])
    with FrameWalk(folder, 32, threads=1) as walk:
        index = walk.index
        shard = folder / "shards" / "00000.tar"
        data = bytearray(shard.read_bytes())
        data[int(index.mp4_offset[1]) + int(index.mp4_bytes[1]) - 5] ^= 255
        shard.write_bytes(data)
        shown = []
        for video_ in walk.videos([0, 1, 2], lambda s: np.arange(int(index.frames[s])), lambda _: CENTRE):
            if video_.sample == 0:
                next(video_.parts)  # the rest is skipped
            elif video_.sample == 1:
                with pytest.raises(BadVideo, match="frames 0 to 19: the CRC-32"):
                    list(video_.parts)
            else:
                shown = [number for numbers, _ in video_.parts for number in numbers]
        assert shown == list(range(20))
