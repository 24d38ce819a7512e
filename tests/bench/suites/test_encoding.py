"""The comparison of encoder settings says what is so: CAVLC is larger and decodes faster, layers save frames,
and the codecs' default qualities are about equal."""

import json

import pytest

from unstill.bench.suites import encoding
from unstill.bench.suites.camera import CameraBench
from unstill.bench.suites.convert import ConvertBench
from unstill.pipeline.errors import InputError


@pytest.mark.slow
def test_rows_of_a_synthetic_video(tmp_path):
    path = encoding.run(encoding.EncodingBench(out=tmp_path, frames=48, rounds=3))
    rows = {row["title"]: row["value"] for row in json.loads(path.read_text())["rows"]}
    assert len(rows) == 13
    assert 1.0 < rows["size at equal PSNR of all frames: layers, CAVLC / layers, CABAC"] < 1.3
    assert 0.2 < rows["decoding a 16x2 clip, CPU time: layers, CAVLC / one layer, CABAC"] < 0.8
    for codec in ("HEVC", "VP9"):
        assert 0.3 < rows[f"{codec} by default: size / H.264"] < 1.6
        assert abs(rows[f"{codec} by default: PSNR above H.264"]) < 3


@pytest.mark.parametrize(
    ("bench", "option"), [(encoding.EncodingBench, "videos"), (ConvertBench, "real"), (CameraBench, "videos")]
)
def test_a_video_that_is_not_there_is_named(tmp_path, bench, option):
    with pytest.raises(InputError, match=f"{option}: no file at .*gone.mp4"):
        bench(**{option: (tmp_path / "gone.mp4",)})
