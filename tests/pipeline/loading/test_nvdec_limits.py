"""What NVDEC cannot do is said at start-up, in one line with a remedy."""

import logging

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading import nvdec_limits
from unstill.pipeline.loading.codec_support import check_codecs
from unstill.pipeline.loading.nvdec_limits import SIZES, check_driver, check_sizes
from unstill.pipeline.shards.index import CODECS, SampleIndex

VERSION = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  {}  Release Build\nGCC version: 12.2\n"


class Sized:
    """The columns of an index that limits are about."""

    def __init__(self, *videos: tuple[str, int, int]):
        codec, self.width, self.height = (np.array(column) for column in zip(*videos, strict=True))
        self.codec = np.array([CODECS.index(name) for name in codec])

    def key(self, row: int) -> str:
        return f"v{row}"


@pytest.mark.parametrize("codec", [name for name in SIZES if name in CODECS])
def test_the_smallest_and_largest_size_pass_and_no_other(codec):
    least, most = SIZES[codec]
    check_sizes(Sized((codec, *least), (codec, *most)), "data")
    for wrong in [(least[0] - 1, least[1]), (least[0], least[1] - 1), (most[0] + 1, most[1]), (most[0], most[1] + 1)]:
        with pytest.raises(InputError, match=rf"data: 1 of 2 videos are {codec} .*v1 .*{wrong[0]}x{wrong[1]};") as no:
            check_sizes(Sized((codec, *least), (codec, *wrong)), "data")
        assert "\n" not in str(no.value)


def test_small_hevc_is_sent_to_h264_and_a_large_one_to_a_smaller_side():
    with pytest.raises(InputError, match=r"with --codec h264$"):
        check_sizes(Sized(("hevc", 128, 96)), "data")
    with pytest.raises(InputError, match=r"leave such videos out$"):
        check_sizes(Sized(("vp9", 32, 32)), "data")
    with pytest.raises(InputError, match=r"with a smaller --short-side$"):
        check_sizes(Sized(("h264", 7680, 4320)), "data")


def test_sizes_without_a_decoder_cache_are_named(caplog):
    with caplog.at_level(logging.WARNING, logger="unstill"):
        check_sizes(Sized(("h264", 336, 256)), "data")
        assert not caplog.records
        check_sizes(Sized(("h264", 336, 256), ("h264", 1920, 1080)), "data")
    (record,) = caplog.records
    assert "1 of 2 videos" in record.getMessage() and "1920x1080" in record.getMessage()


def test_the_driver_and_its_library(tmp_path):
    version, loaded = tmp_path / "version", []
    for text in (VERSION.format("580.65.06"), VERSION.format("610.1"), "something else"):
        version.write_text(text)
        check_driver(loaded.append, version)
    check_driver(loaded.append, tmp_path / "none")
    assert set(loaded) == {"libnvcuvid.so.1"}
    for old in (VERSION.format("570.86.10"), "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun\n"):
        version.write_text(old)
        with pytest.raises(InputError, match=r"driver is 5[37][05]\.[\d.]+, CUDA 13 needs 580 or newer; update"):
            check_driver(loaded.append, version)
    with pytest.raises(InputError, match=r"video-decode library is missing \(no_such.*NVIDIA_DRIVER_CAPABILITIES"):
        check_driver(lambda name: (_ for _ in ()).throw(OSError("no_such file")), version)


def test_the_loaders_check_asks_for_all_of_it(small_dataset, monkeypatch):
    index = SampleIndex.load(small_dataset)  # VP9 of 96x64
    with pytest.raises(InputError, match=r"video-decode library is missing|CUDA 13 needs|that NVDEC does not decode"):
        check_codecs(index, None, torch.device("cuda"), small_dataset)
    monkeypatch.setattr(nvdec_limits, "check_driver", lambda: None)
    with pytest.raises(InputError, match=r"10 of 10 videos are vp9 .*from 128x128.*--codec h264"):
        check_codecs(index, None, torch.device("cuda"), small_dataset)


def test_motion_jpeg_is_refused_before_a_gpu_sees_it(monkeypatch):
    monkeypatch.setattr(nvdec_limits, "check_driver", lambda: None)
    remedies = r"give --loader.decoder cores.* --codec h264"
    with pytest.raises(InputError, match=rf"mjpeg, which DALI cannot decode on cuda; {remedies}"):
        check_codecs(Sized(("mjpeg", 320, 240)), None, torch.device("cuda"), "data")
