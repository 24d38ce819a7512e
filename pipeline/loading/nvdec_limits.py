"""What NVDEC, the GPU's video decoder, needs and takes; said before the first step, in one line with a remedy.

DALI reports a picture that is too small in the same words as a damaged file, and a missing library as a failed
pipeline.
"""

import ctypes
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..errors import InputError
from ..shards.index import CODECS, SampleIndex
from ..shards.video_format import BLOCK

log = logging.getLogger(__name__)

LIBRARY = "libnvcuvid.so.1"
DRIVER = 580  # the first that runs CUDA 13, which torch and DALI are built for
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


class Sizes(NamedTuple):
    """Smallest and largest width and height of a picture, pixels."""

    least: tuple[int, int]
    most: tuple[int, int]

    def __str__(self) -> str:
        return f"from {self.least[0]}x{self.least[1]} to {self.most[0]}x{self.most[1]} pixels"


# of Ampere, Ada and Hopper, as nvdecinfo prints what cuvidGetDecoderCaps says (github.com/philipl/nv-video-info, issue
# 7), and NVIDIA's table (developer.nvidia.com/video-encode-decode-support-matrix). DALI has no MJPEG video on a GPU
SIZES = {
    "h264": Sizes((48, 16), (4096, 4096)),
    "hevc": Sizes((144, 144), (8192, 8192)),
    "vp8": Sizes((48, 16), (4096, 4096)),
    "vp9": Sizes((128, 128), (8192, 8192)),
    "av1": Sizes((128, 128), (8192, 8192)),
}


def check_nvdec(index: SampleIndex, root: str | Path) -> None:
    """Refuse a dataset or a machine whose videos NVDEC cannot decode; warn of what makes it slow.

    Args:
        index: the dataset's.
        root: its name, for messages.

    Raises:
        InputError: with what to do.
    """
    check_driver()
    check_sizes(index, root)


def check_driver(load: Callable[[str], object] = ctypes.CDLL, version_file: Path = _DRIVER_FILE) -> None:
    """Refuse a driver without its video library, or one that is too old.

    Args:
        load: opens a shared library, or raises OSError.
        version_file: where the driver says its version; without it only the library is asked for.

    Raises:
        InputError: with what to install.
    """
    if reason := missing_library(load):
        raise InputError(
            f"{reason}; install the driver's video package (libnvidia-decode), or start the container with "
            "NVIDIA_DRIVER_CAPABILITIES=compute,utility,video"
        )
    try:
        found = re.search(r"Kernel Module\s+(?:for \S+\s+)?((\d+)\.[\d.]+)", version_file.read_text())
    except OSError:
        return
    if found and int(found[2]) < DRIVER:
        raise InputError(
            f"the NVIDIA driver is {found[1]}, CUDA 13 needs {DRIVER} or newer; update the driver, or use a machine "
            "that has one"
        )


def missing_library(load: Callable[[str], object] = ctypes.CDLL) -> str | None:
    """Why the driver's video-decode library cannot be used, or None."""
    try:
        load(LIBRARY)
    except OSError as error:
        return f"the driver's video-decode library is missing ({error})"
    return None


def check_sizes(index: SampleIndex, root: str | Path) -> None:
    """Refuse videos of sizes that NVDEC does not take; warn of sizes that it opens a session for each time.

    Raises:
        InputError: names the codec, its limits, how many videos are outside of them, and one of them.
    """
    codec, width, height = (np.asarray(column, np.int64) for column in (index.codec, index.width, index.height))
    for number in np.unique(codec).tolist():
        sizes = SIZES.get(CODECS[number]) if number < len(CODECS) else None
        if sizes is None:
            continue  # `check_codecs` refuses it
        (least_width, least_height), (most_width, most_height) = sizes
        small = (width < least_width) | (height < least_height)
        outside = (codec == number) & (small | (width > most_width) | (height > most_height))
        if rows := np.flatnonzero(outside).tolist():
            first, name = rows[0], CODECS[number]
            remedy = "run `unstill convert` with a smaller --short-side"
            if small[first]:
                h264 = SIZES["h264"].least
                fits = name != "h264" and width[first] >= h264[0] and height[first] >= h264[1]
                remedy = "run `unstill convert` with --codec h264" if fits else "leave such videos out"
            raise InputError(
                f"{root}: {len(rows):,} of {len(codec):,} videos are {name} of a size that NVDEC does not decode, "
                f"{index.key(first)} for example has {width[first]}x{height[first]}; it takes {name} {sizes}; "
                f"{remedy}"
            )
    odd = np.flatnonzero((width % BLOCK != 0) | (height % BLOCK != 0)).tolist()
    if odd:
        log.warning(
            "%s: %s of %s videos have sides that are no multiple of %d (%dx%d, as --codec copy leaves them): DALI "
            "opens a decoder session for each of their clips, 50 to 70 ms on an H100; convert without --codec copy",
            *(root, f"{len(odd):,}", f"{len(codec):,}", BLOCK, width[odd[0]], height[odd[0]]),
        )
