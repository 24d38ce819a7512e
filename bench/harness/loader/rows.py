"""Rows of the loader's benchmark, with the project's targets."""

import numpy as np

from ..record import quantiles, spread
from ..row import Role, Row

LEAST_OF_WHOLE_FILES, MOST_BY_START, LEAST_READ, LEAST_OF_BOTH = 1.8, 1.3, 5000.0, 1.6
LEAST_OF_LOCAL, MOST_FETCHED, MOST_GROWTH_MB = 0.9, 1.2, 16.0
OURS, WHOLE, LAYERED = "unstill (GOPs only)", "DALI, whole file", "unstill (GOPs only), --layers 2"
BEFORE = "unstill (GOPs only), --quality 31"  # as VP9 was before it had layers


def role_of(path: str) -> Role:
    """Whose path it is, by its name."""
    return "ours" if path.startswith("unstill") else "limit" if path.startswith("bare") else "peer"


def cores_rate_row(path: str, rate: dict[str, float]) -> Row:
    """Clips of H.264 that a path delivers in a second of CPU time."""
    unit, facts = "clips per CPU-second", {"measure": "rate", "path": path, "codec": "h264"}
    return Row(
        title=f"H.264: {path}",
        **spread(rate),
        unit=unit,
        better="higher",
        figure="cores",
        role=role_of(path),
        facts=facts,
    )


def ratio_row(title: str, ratio: np.ndarray, least: float, **facts) -> Row:
    """One path over another in the same rounds, on H.264 through the cores."""
    facts = {"measure": "ratio", "codec": "h264"} | facts
    return Row(title=f"H.264: {title}", **spread(quantiles(ratio.tolist())), unit="times", at_least=least, facts=facts)


def both_row(ratio: dict[str, float]) -> Row:
    """Two decoders over one."""
    title, facts = "two equal decoders share batches / one alone", {"measure": "both", "clock": "wall"}
    return Row(title=title, **spread(ratio), unit="times", at_least=LEAST_OF_BOTH, facts=facts)


def rate_row(path: str, rate: dict[str, float]) -> Row:
    """Clips that a path delivers in a second of CPU time."""
    unit, facts = "clips per CPU-second", {"measure": "rate", "path": path}
    figure = "" if path == BEFORE else "rate"
    return Row(title=path, **spread(rate), unit=unit, better="higher", figure=figure, role=role_of(path), facts=facts)


def whole_files_row(ratio: dict[str, float]) -> Row:
    """Our slices against whole files, both decoded by DALI."""
    return Row(
        title="GOPs only / whole file",
        **spread(ratio),
        unit="times",
        at_least=LEAST_OF_WHOLE_FILES,
        headline="as many clips as from whole files, with the same decoder on a CPU",
        facts={"measure": "whole files"},
    )


def vp9_rows(rates: dict[str, list[float]]) -> list[Row]:
    """VP9 by DALI: now over before, in two layers and in one; and what layers do to it at the same quality.

    Args:
        rates: clips per CPU-second of each path in the same rounds; ``OURS``, ``LAYERED`` and ``BEFORE`` are read.
    """

    def row(title: str, over: str, under: str, least: float | None = None) -> Row:
        ratio = quantiles((np.array(rates[over]) / np.array(rates[under])).tolist())
        facts = {"measure": "layers", "codec": "vp9"}
        title = f"VP9 through DALI, {title}"
        return Row(title=title, **spread(ratio), unit="times", better="higher", at_least=least, facts=facts)

    return [
        row("--layers 2 / one layer of CRF 31, as it was", LAYERED, BEFORE, 1.2),
        row("as converted by default / one layer of CRF 31, as it was", OURS, BEFORE),
        row("--layers 2 / one layer of the same quality", LAYERED, OURS),
    ]


def start_row(path: str, start: int, last: int, cost: dict[str, float]) -> Row:
    """CPU time of a clip that starts from frame ``start`` to ``last``."""
    return Row(
        title=f"{path}, start {start}-{last}",
        **spread(cost),
        unit="CPU-ms per clip",
        better="lower",
        figure="start",
        label=f"from frame {start}-{last}",
        group=path,
        role=role_of(path),
        facts={"measure": "start", "path": path},
    )


def by_start_row(path: str, ratio: float) -> Row:
    """The slowest place to start a clip over the fastest; 1 is flat. Whole files have no target."""
    ours = path == OURS
    return Row(
        title=f"{path}, slowest / fastest start",
        value=ratio,
        unit="times",
        better="lower",
        at_most=MOST_BY_START if ours else None,
        headline="at most, slowest over fastest place in a video to start a clip" if ours else "",
        facts={"measure": "by start", "path": path},
    )


def reading_row(rate: dict[str, float]) -> Row:
    """Choosing clips, fetching and checking their bytes; nothing is decoded."""
    title, unit = "sampler + reading alone", "clips per CPU-second"
    return Row(title=title, **spread(rate), unit=unit, at_least=LEAST_READ, facts={"measure": "reading"})


def remote_row(ratio: dict[str, float]) -> Row:
    """Clips from a server 30 ms away over the same from the disk."""
    title, facts = "clips from a server 30 ms away / from local files", {"measure": "remote", "clock": "wall"}
    return Row(title=title, **spread(ratio), unit="times", at_least=LEAST_OF_LOCAL, facts=facts)


def remote_work_row(ratio: dict[str, float]) -> Row:
    """CPU time of a clip from the disk, over that of one from the server, whose own time is not counted."""
    title = "CPU time of a clip from local files / from a server 30 ms away"
    return Row(title=title, **spread(ratio), unit="times", better="higher", facts={"measure": "remote work"})


def latency_row(ratio: dict[str, float]) -> Row:
    """The same server with its latency over the same without: what waiting costs; the rest is processors' work."""
    title, facts = "clips from a server 30 ms away / from one 0 ms away", {"measure": "latency", "clock": "wall"}
    return Row(title=title, **spread(ratio), unit="times", better="higher", facts=facts)


def fetched_row(ratio: float) -> Row:
    """Bytes that came over the network, over those of the clips' headers and GOPs, nothing in the cache."""
    title = "bytes fetched / needed, cold cache"
    return Row(title=title, value=ratio, unit="times", at_most=MOST_FETCHED, facts={"measure": "fetched"})


def memory_row(megabytes: float, clips: int) -> Row:
    """What decoding on the cores adds to the resident memory once it runs."""
    title, facts = f"memory that {clips:,} more clips add, H.264 on the cores", {"measure": "memory"}
    return Row(title=title, value=megabytes, unit="MB", at_most=MOST_GROWTH_MB, facts=facts)


def converted_row(shares: np.ndarray) -> Row:
    """Our loader over decoding, cropping, scaling and RGB alone: what is left for everything else."""
    title = "H.264: unstill / decoding and RGB alone, layered, CAVLC"
    return Row(
        title=title, **spread(quantiles(shares.tolist())), unit="times", better="higher", facts={"codec": "h264"}
    )
