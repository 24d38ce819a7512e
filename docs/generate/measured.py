"""Speed, size and memory, from the CPU's result files: one table, and the lines of it that README shows."""

import re
import statistics
from collections.abc import Callable

from blocks import table
from results import Results

LOADER, CONVERT, STEP, ENCODING = "loader-cpu", "convert-cpu", "step-cpu", "encoding-cpu"
KINETICS = 240_000  # training videos
CODECS = ("H.264", "VP9", "HEVC")


def blocks(results: Results) -> dict[str, str]:
    """``headlines`` (README), ``measured``, ``recipes``, ``kinetics cost`` and ``encoding`` (docs)."""
    heads = ["what", "measured", "file"]

    def lines(of):
        return table(heads, [[what, said(results), f"`{file}.json`"] for what, said, file in of], left=3)

    return {
        "headlines": lines(HEADLINES),
        "measured": lines(LINES),
        "recipes": recipes(results),
        "kinetics cost": kinetics_cost(results),
        "encoding": encoding(results),
    }


def _values(file: str, *titles: str, form: str = "{:.2f}", join: str = ", ") -> Callable[[Results], str]:
    return lambda results: join.join(form.format(results.value(file, title)) for title in titles)


def _times(file: str, title: str, digits: int = 2) -> Callable[[Results], str]:
    """``0.94 x``, with the target where there is one that was missed."""

    def said(results: Results) -> str:
        row = results.row(file, title)
        text = f"{row['value']:.{digits}f} x"
        if row.get("met") is False:
            text += f" (target {row.get('at_least', row.get('at_most')):g} missed)"
        return text

    return said


def _bare(results: Results) -> str:
    names = ("P-only, CABAC", "layered, CABAC", "layered, CAVLC")
    return "; ".join(_times(LOADER, f"H.264: unstill / bare decoding, {name}")(results) for name in names)


def _ffmpeg(results: Results) -> str:
    made = [f"transcode and check / ffmpeg, {codec}" for codec in CODECS]
    real = [f"{title}, real videos" for title in made]
    return "; ".join(_values(CONVERT, *titles)(results) for titles in (made, real)) + " x (target 0.9)"


def _spilled(results: Results) -> str:
    counted = [row for row in results.rows("kernels_sm90") if isinstance(row.get("configurations"), int)]
    spilled = sum(row["spilled_bytes"] for row in counted)
    return f"{spilled} in {sum(row['configurations'] for row in counted)} configurations"


def _remote(results: Results) -> str:
    title = "clips from a server 30 ms away / from local files"
    return f"{_times(LOADER, title)(results)}; {results.value(LOADER, 'bytes fetched / needed, cold cache'):.2f} x"


def _memory(results: Results) -> str:
    title = "swin3d_t, ALBAR, {}, one clip: real memory over cross entropy"
    closed = ("closed attention", "closed attention and gelu", "closed attention and MLP")
    return ", ".join(f"{results.value('penalty-cost', title.format(name)):.2f}" for name in closed) + " x"


def _bytes_moved(results: Results) -> str:
    title = "clip_prep, {}, bytes moved, predicted"
    shape = "32x32x224x224, static clip as one frame"
    rows = [row for row in results.rows("kernels-cpu") if row.get("group") == shape]
    values = {row["title"]: row["value"] for row in rows}
    return f"{values[title.format('triton')]:,.0f} MB / {values[title.format('eager bf16')]:,.0f} MB"


def _growth(results: Results) -> str:
    return ", ".join(
        f"{results.value('growth-cpu', f'start-up for {n} videos') / 1000:.2f} s" for n in ("1,000,000", "10,000,000")
    )


# what, how it is printed, the file
LINES: tuple[tuple[str, Callable[[Results], str], str], ...] = (
    (
        "ALBAR's memory over plain cross entropy, Video Swin-T, one clip of 32x224x224, float32, with attention "
        "recomputed; attention and gelu; attention and MLP",
        _memory,
        "penalty-cost",
    ),
    (
        "ALBAR step, reduced Swin, float32, one core: compiled / eager, time",
        _times(STEP, "reduced_swin: cpu time"),
        STEP,
    ),
    (
        "the same, compiled / both forwards before one backward, torchvision's attention: time; memory",
        lambda results: "; ".join(
            _times(STEP, f"reduced_swin: cpu {what} over one backward")(results) for what in ("time", "memory")
        ),
        STEP,
    ),
    (
        "the same, compiled / compiled cross entropy, time",
        _times(STEP, "reduced_swin: cpu cost over cross entropy"),
        STEP,
    ),
    (
        "`--step.recompute` with closed attention / eager: time; resident memory",
        lambda results: "; ".join(
            _times(STEP, f"reduced_swin: cpu {what}, recompute")(results) for what in ("time", "memory")
        ),
        STEP,
    ),
    (
        "H.264, clips per CPU-second: unstill (layers, CAVLC), (layers, CABAC), (one layer, CABAC)",
        _values(
            LOADER,
            *(f"H.264: unstill, {name}" for name in ("layered, CAVLC", "layered, CABAC", "P-only, CABAC")),
            form="{:.0f}",
        ),
        LOADER,
    ),
    (
        "the same clips of the one-layer files: torchcodec, PyAV, webdataset + PyAV, decord",
        _values(
            LOADER,
            *(
                f"H.264: {name}, P-only"
                for name in ("torchcodec + DataLoader", "PyAV + DataLoader", "webdataset + PyAV", "decord + DataLoader")
            ),
            form="{:.0f}",
        ),
        LOADER,
    ),
    (
        "unstill / libavcodec decoding the same frames and delivering nothing: one layer; layers; layers, CAVLC",
        _bare,
        LOADER,
    ),
    (
        "clips from GOP slices / from whole files, both through DALI on a CPU (VP9 336x256, 16x2)",
        _times(LOADER, "GOPs only / whole file", 1),
        LOADER,
    ),
    (
        "slowest / fastest start frame: GOP slices, whole files",
        _values(LOADER, "unstill (GOPs only), slowest / fastest start", "DALI, whole file, slowest / fastest start"),
        LOADER,
    ),
    (
        "VP9, clips per CPU-second: unstill (DALI on a CPU), PyAV, torchcodec, decord, webdataset + PyAV",
        _values(
            LOADER,
            "unstill (GOPs only)",
            "PyAV + DataLoader",
            "torchcodec + DataLoader",
            "decord + DataLoader",
            "webdataset + PyAV",
            form="{:.0f}",
        ),
        LOADER,
    ),
    (
        "frames decoded per frame delivered, 16x2, 32x2",
        _values(LOADER, *(f"frames decoded per frame delivered, {clip}, layered" for clip in ("16x2", "32x2"))),
        LOADER,
    ),
    (
        "two equal decoders that share batches / one, wall clock",
        _times(LOADER, "two equal decoders share batches / one alone"),
        LOADER,
    ),
    (
        "clips from an S3 server 30 ms away, the loader on one core / from local files; bytes fetched / needed",
        _remote,
        LOADER,
    ),
    (
        "choosing clips, reading and checking their bytes alone, one core",
        _values(LOADER, "sampler + reading alone", form="{:,.0f} clips/s"),
        LOADER,
    ),
    (
        "H.264, decoding a 16x2 clip: layers + CAVLC / one layer + CABAC; CAVLC / CABAC, time",
        lambda results: "; ".join(
            _times(ENCODING, f"decoding a 16x2 clip, CPU time: layers, CAVLC / {other}, CABAC")(results)
            for other in ("one layer", "layers")
        ),
        ENCODING,
    ),
    (
        "the same, bytes at equal PSNR of the frames shown",
        lambda results: "; ".join(
            _times(ENCODING, f"size at equal PSNR of even frames: layers, CAVLC / {other}, CABAC")(results)
            for other in ("one layer", "layers")
        ),
        ENCODING,
    ),
    (
        "frames converted per CPU-second / by the ffmpeg command line: H.264, VP9, HEVC; median of 5 real videos",
        _ffmpeg,
        CONVERT,
    ),
    (
        "two converting workers against one, wall clock",
        _times(CONVERT, "whole conversion, two workers / one"),
        CONVERT,
    ),
    (
        "asking again for a finished conversion of 1,000 shards",
        _values(CONVERT, "resume of a finished job of 1000 shards", form="{:.2f} s"),
        CONVERT,
    ),
    ("from opening the index to the first clips' addresses, 1 and 10 million videos", _growth, "growth-cpu"),
    (
        "memory that this takes, 1 million videos",
        _values("growth-cpu", "memory for 1,000,000 videos", form="{:.0f} bytes a video"),
        "growth-cpu",
    ),
    (
        "`demo_albar` end to end on two cores: real loader, replayed batches",
        lambda results: (
            _values(
                "train-cpu",
                *(f"{which} loader, albar, motion_cnn, 8x1x32, batch 32" for which in ("real", "ideal")),
                form="{:.0f}",
            )(results)
            + " clips/s"
        ),
        "train-cpu",
    ),
    ("bytes that the Triton kernels compiled for sm_90 spill", _spilled, "kernels_sm90"),
    (
        "bytes `clip_prep` moves at 32x32x224x224 (static frame) / eager bf16 torch, predicted",
        _bytes_moved,
        "kernels-cpu",
    ),
)


def _best_peer(results: Results) -> str:
    title = "H.264: layered CAVLC / torchcodec on P-only CABAC"
    same = results.value(LOADER, "H.264: unstill / the best peer, P-only")
    return f"{same:.1f} x; {results.value(LOADER, title):.1f} x"


# the README's: what, how it is printed, the file
HEADLINES: tuple[tuple[str, Callable[[Results], str], str], ...] = (
    LINES[0],
    (
        "ALBAR's compiled step over one with both forwards before one backward: time; memory (reduced Swin)",
        LINES[2][1],
        STEP,
    ),
    ("the same over compiled cross entropy: time", LINES[3][1], STEP),
    (
        "H.264 clips per CPU-second over the best of four other loaders: same files; our layered files",
        _best_peer,
        LOADER,
    ),
    (
        "frames decoded for one delivered: clips of 16, of 32, every second frame",
        LINES[11][1],
        LOADER,
    ),
    ("clips from an S3 server 30 ms away / from local files; bytes fetched / needed", _remote, LOADER),
    (
        "frames converted per CPU-second / by the ffmpeg command line: H.264, VP9, HEVC; the same of 5 real videos",
        _ffmpeg,
        CONVERT,
    ),
)


def recipes(results: Results) -> str:
    """What a step of a recipe asks for, per clip."""
    albar = results.row("penalty-cost", "swin3d_t, ALBAR, closed attention, one clip: real memory over cross entropy")
    operations = results.row(
        "penalty-cost", "swin3d_t, ALBAR, closed attention, one clip: operations over cross entropy"
    )
    plain = results.row("recipes-cpu", "a step of hmdb51_baseline")
    small = [results.row("recipes-cpu", f"a step of {name}") for name in ("kinetics400_scratch", "choi_r3d18")]
    names = "`hmdb51_albar`, `ucf101_albar`, `kinetics400_albar`"

    def line(recipes: str, clip: str, tflop: float, mib: float, seconds: float) -> list[str]:
        return [recipes, clip, f"{tflop:.2f}", f"{mib / 1024:.1f} GiB", f"{seconds:.0f}"]

    swin, r3d = "swin3d_t, 32x224x224", "r3d_18, 16x112x112"
    mean = statistics.fmean(row["value"] for row in small) / 1000
    return table(
        ["recipes", "model, clip", "TFLOP", "memory above the weights", "CPU-seconds"],
        [
            line(names, swin, operations["tflop"], albar["mib"], albar["cpu_seconds"]),
            line("their `_baseline` twins", swin, plain["tflop_per_clip"], plain["peak_mib"], plain["value"] / 1000),
            line("`choi_r3d18`, `kinetics400_scratch`", r3d, small[0]["tflop_per_clip"], small[0]["peak_mib"], mean),
        ],
        left=2,
    )


def kinetics_cost(results: Results) -> str:
    """What 240,000 videos cost to convert, from the notes that ``unstill bench convert`` worked out."""
    notes = results.file(CONVERT)["notes"]
    found = {}
    for note in notes:
        if match := re.match(
            r"h264( from 340x256)?: .*x ([\d.]+) CPU-s .*= (\d+) core-hours; x ([\d.]+) MB = ([\d.]+)", note
        ):
            found["340x256" if match[1] else "1280x720"] = match.groups()[1:]
    return table(
        ["ten-second sources", "CPU-seconds a video", f"core-hours for {KINETICS:,}", "MB a video", "TB in all"],
        [[name, *found[name]] for name in ("1280x720", "340x256")],
    )


def encoding(results: Results) -> str:
    """What temporal layers and CAVLC give and take."""
    rows = []
    for other, words in (
        ("one layer, CABAC", "layers + CAVLC / one layer + CABAC"),
        ("layers, CABAC", "CAVLC / CABAC"),
    ):
        decode = results.value(ENCODING, f"decoding a 16x2 clip, CPU time: layers, CAVLC / {other}")
        size = results.value(ENCODING, f"size at equal PSNR of even frames: layers, CAVLC / {other}")
        rows.append([words, f"{decode:.2f} x", f"{size:.2f} x"])
    by_default = []
    for codec in ("HEVC", "VP9"):
        size = results.value(ENCODING, f"{codec} by default: size / H.264")
        decibels = results.value(ENCODING, f"{codec} by default: PSNR above H.264")
        by_default.append([codec, f"{size:.2f} x", f"{decibels:+.1f} dB"])
    layers = table(["H.264", "CPU time of a 16x2 clip", "bytes at equal PSNR of even frames"], rows)
    return layers + "\n\n" + table(["by default / H.264", "bytes", "PSNR"], by_default)
