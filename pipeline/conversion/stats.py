"""``stats.html``: what a converted dataset looks like, on one self-contained page."""

import base64
import io
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ..atomic_files import write_atomic
from ..pages import template
from ..safe_text import printable
from ..shards.index import SampleIndex
from ..shards.quarantine import Failure
from .output import LocalOutput

STATS_NAME = "stats.html"
PICTURES = 24  # of the contact sheet
FAILURES_SHOWN = 200
BINS = 24


def write_stats(output: LocalOutput, dataset: dict, index: SampleIndex, failures: list[Failure]) -> None:
    """Write the page into the dataset's folder.

    Args:
        output: the dataset's place; its shards are read for the contact sheet.
        dataset: the content of ``dataset.json``.
        index, failures: the samples, and the quarantined videos.
    """
    seconds = index.frames / (index.fps_milli / 1000)
    sizes = Counter(zip(index.width.tolist(), index.height.tolist(), strict=True))
    rates = Counter(index.fps_milli.tolist())
    counts = np.bincount(index.label, minlength=len(index.classes))
    page = _TEMPLATE.render(
        dataset=dataset,
        recipe=dataset["settings"]["recipe"],
        frames=int(index.frames.sum(dtype=np.int64)),
        hours=float(seconds.sum()) / 3600,
        megabytes=sum(shard["bytes"] for shard in dataset["shards"]) / 1e6,
        durations=_histogram(seconds, "s"),
        weights=_histogram(index.mp4_bytes / 1e3, "kB"),
        sizes=_bars([(f"{w}×{h}", n) for (w, h), n in sizes.most_common(12)]),
        rates=_bars([(f"{milli / 1000:g} fps", n) for milli, n in rates.most_common(8)]),
        classes=_bars(sorted(zip(map(printable, index.classes), counts.tolist(), strict=True), key=lambda c: -c[1])),
        notes=_bars(sorted(dataset["notes"].items(), key=lambda note: -note[1])),
        same=dataset["same_content"],
        reasons=_bars(sorted(dataset["reasons"].items(), key=lambda reason: -reason[1])),
        failures=[(printable(f.path), f.reason, printable(f.detail)) for f in failures[:FAILURES_SHOWN]],
        more_failures=max(0, len(failures) - FAILURES_SHOWN),
        pictures=contact_sheet(output, index),
    )
    write_atomic(output.root / STATS_NAME, page.encode())


def contact_sheet(output: LocalOutput, index: SampleIndex) -> list[tuple[str, str, str]]:
    """(key, class, JPEG as base64) of up to ``PICTURES`` samples, spread evenly over the dataset's order."""
    rows = np.unique(np.linspace(0, len(index) - 1, min(PICTURES, len(index))).astype(int))
    return [(index.key(row), index.classes[index.label[row]], _picture(output, index, row)) for row in rows.tolist()]


def _picture(output: LocalOutput, index: SampleIndex, row: int) -> str:
    """The middle frame of one sample; only its GOP is read."""
    middle = int(index.frames[row]) // 2
    first = index.fragment_row[row] + middle // int(index.gop[row])
    init = int(index.init_bytes[row])
    begin = init if first == index.fragment_row[row] else int(index.fragment_end[first - 1])
    with output.open_shard(index.shard_names[index.shard[row]]) as file:
        file.seek(int(index.mp4_offset[row]))
        header = file.read(init)
        file.seek(int(index.mp4_offset[row]) + begin)
        data = header + file.read(int(index.fragment_end[first]) - begin)
    with av.open(io.BytesIO(data), "r", format="mp4") as container:
        frames = list(container.decode(video=0))
    return base64.b64encode(_jpeg(frames[min(middle % int(index.gop[row]), len(frames) - 1)])).decode()


def _jpeg(frame: av.VideoFrame) -> bytes:
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = (
        frame.width,
        frame.height,
        "yuvj420p",
        Fraction(1),
    )
    encoder.options = {"flags": "+bitexact"}
    encoder.thread_count = 1
    encoder.qmin = encoder.qmax = 4
    picture = frame.reformat(format="yuvj420p", dst_color_range=2)
    picture.pts, picture.pict_type = 0, 0
    return b"".join(bytes(packet) for packet in (*encoder.encode(picture), *encoder.encode(None)))


def _bars(items: list[tuple[str, int]]) -> list[dict]:
    largest = max((count for _, count in items), default=1)
    return [{"name": name, "count": count, "share": 100 * count / max(largest, 1)} for name, count in items]


def _histogram(values: np.ndarray, unit: str) -> dict:
    """Bars over equal bins from the least to the largest value; one bar when all are the same."""
    low, high = float(values.min()), float(values.max())
    counts = np.histogram(values, BINS, (low, high))[0] if high > low else np.array([len(values)])
    shares = (100 * counts / counts.max()).tolist()
    edges = np.linspace(low, high, len(counts) + 1).tolist()
    bars = [
        {"share": share, "label": f"{a:.3g} to {b:.3g} {unit}: {count}"}
        for share, a, b, count in zip(shares, edges, edges[1:], counts.tolist(), strict=False)
    ]
    return {
        "bars": bars,
        "low": f"{low:.3g}",
        "high": f"{high:.3g}",
        "median": f"{np.median(values):.3g}",
        "unit": unit,
    }


_TEMPLATE = template(Path(__file__).with_name("stats.html.j2"))
