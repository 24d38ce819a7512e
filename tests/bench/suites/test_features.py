"""`unstill bench features`: the long video is what it says, and can be converted without being encoded again."""

import av
import numpy as np

from unstill.bench.suites.features import repeated, ten_seconds
from unstill.pipeline.conversion.convert import ConvertConfig, convert
from unstill.pipeline.shards.index import SampleIndex


def test_a_long_video_repeats_a_short_one(tmp_path):
    ten_seconds(tmp_path / "piece.mp4")
    (tmp_path / "videos" / "a").mkdir(parents=True)
    repeated(tmp_path / "piece.mp4", tmp_path / "videos" / "a" / "long.mp4", 3)
    with av.open(str(tmp_path / "videos" / "a" / "long.mp4")) as container:
        frames = [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
    assert len(frames) == 900 and np.array_equal(frames[7], frames[607]) and not np.array_equal(frames[7], frames[8])
    report = convert(ConvertConfig(source=tmp_path / "videos", out=tmp_path / "shards", codec="copy", workers=1))
    assert report.quarantined == 0, report.reasons
    index = SampleIndex.load(tmp_path / "shards")
    assert index.frames.tolist() == [900] and index.gop.tolist() == [12]
