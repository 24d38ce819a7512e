"""Run as ``python encoding_digests.py FOLDER LEVEL``: digests of what the videos in FOLDER become, as JSON.

LEVEL, a key of LEVELS, names the instructions that the libraries may use. What memory holds before is set from outside,
by MALLOC_PERTURB_.
"""

import ctypes
import hashlib
import json
import os
import sys
from pathlib import Path

LEVELS = {  # libavutil's flags to clear, x264's and x265's name, libvpx's mask
    "all": (0, "", 0x1FF),
    "avx2": (0x300000, "avx2", 0xFF),  # without AVX-512
    "sse4.2": (0x300000 | 0x8000 | 0x4000 | 0x10000 | 0x800, "sse4.2", 0x3F),
    "none": (0x7FFFFFFF, "0", 0),
    "ssse3": (0x300000 | 0x8000 | 0x4000 | 0x10000 | 0x800 | 0x300, "ssse3", 0x1F),
}
ENCODINGS = [  # codec, layers, entropy coder
    ("h264", 2, "cavlc"),
    ("h264", 1, "cabac"),
    ("hevc", 2, "cavlc"),
    ("vp9", 1, "cavlc"),
    ("vp9", 2, "cavlc"),
]


def main(folder: Path, level: str) -> None:
    cleared, asm, vpx_mask = LEVELS[level]
    os.environ["VPX_SIMD_CAPS_MASK"] = hex(vpx_mask)
    from unstill.pipeline.conversion import transcode
    from unstill.pipeline.conversion.convert import ConvertConfig

    with open("/proc/self/maps") as maps:
        path = next(line.split()[-1] for line in maps if "libavutil" in line)
    util = ctypes.CDLL(path)
    util.av_force_cpu_flags(util.av_get_cpu_flags() & ~cleared)
    options_of = transcode.encoder_options

    def restricted(*arguments):
        options = options_of(*arguments)
        for name in ("x264-params", "x265-params"):
            if asm and name in options:
                options[name] += f":asm={asm}"
        return options

    transcode.encoder_options = restricted
    digests = {}
    for source in sorted(folder.iterdir()):
        for codec, layers, entropy in ENCODINGS:
            if codec == "hevc" and "340x256" not in source.name and "96x64" not in source.name:
                continue  # slow
            recipe = ConvertConfig(source="", out="", codec=codec, layers=layers, entropy=entropy).recipe()
            with open(source, "rb") as file:
                mp4 = transcode.transcode(file, recipe).mp4
            digests[f"{source.name} {codec} {layers} {entropy}"] = hashlib.sha256(mp4).hexdigest()
    print(json.dumps(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
