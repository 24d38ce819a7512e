"""The figures of the benchmarks that the report knows: which rows carry the message, and how to read them.

A file that is not listed at the end, or whose rows are no longer those that are expected here, is drawn by the rule of
``report_figures``.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from statistics import mean

from ..harness.result_files import Result
from .figures import Bar, Figure, Mark, Role, by_rule, finite, measured, number
from .promises import GROWTH_BARS

CODECS = {"h264": "H.264", "vp9": "VP9", "hevc": "HEVC"}
MEASURES = {  # of the bias benchmarks: what it is called, which way is better
    "iid": ("accuracy on ordinary videos", "higher"),
    "scuba": ("SCUBA, the scene exchanged", "higher"),
    "scufo": ("SCUFO, a still frame of it", "lower"),
    "conflfg": ("Confl-FG, a second actor stands still", "higher"),
    "contrasted": ("contrasted", "higher"),
    "anti": ("anti, scene and actor of other classes", "higher"),
    "swap": ("swap, new scene, another class's actor", "higher"),
}


def figures(result: Result) -> list[Figure]:
    """What is drawn of a file; empty where no row has a number with a unit."""
    try:
        drawn = [figure for figure in _KNOWN[result.name](result) if figure.bars]
    except (KeyError, TypeError, ValueError):  # unknown, or of another version
        drawn = []
    return drawn or list(by_rule(result))


@dataclass(frozen=True)
class Headline:
    """A number for the top of the page."""

    value: str
    unit: str
    words: str
    file: str


def headlines(results: Sequence[Result]) -> list[Headline]:
    """The numbers that say most, of those that are there."""
    found = []
    for name, where, column, unit, words in _HEADLINES:
        rows = [(r, row) for r in results if r.name == name for row in r.rows if all(row.get(k) == v for k, v in where)]
        found += [Headline(number(row[column]), unit, words, r.file) for r, row in rows[:1] if finite(row.get(column))]
    return found


_HEADLINES = (  # benchmark, row, column, unit, words
    (
        "loader",
        (("path", "GOPs only / whole file"),),
        "p50",
        "×",
        "as many clips as from whole files, with the same decoder on a CPU",
    ),
    (
        "loader",
        (("path", "unstill (GOPs only), slowest / fastest start"),),
        "p50",
        "×",
        "at most, between the cheapest and the dearest place in a video to start a clip",
    ),
    (
        "convert",
        (("what", "transcode and check, h264"),),
        "ratio",
        "×",
        "the ffmpeg command line's speed in H.264, with every written frame decoded and checked",
    ),
    (
        "growth",
        (("samples", 1_000_000),),
        "memory_bytes_per_sample",
        "bytes",
        "of memory for each of a million videos, ready to be shuffled",
    ),
)


def _convert(result: Result) -> Iterator[Figure]:
    beside, memory = [], []
    for row in result.rows:
        name = row["what"]
        if name.startswith("transcode") and "ratio" in row:
            spread = f"{number(row['p50'])} ({number(row['p20'])} to {number(row['p80'])})"
            detail = f"frames per CPU-second: ours {spread}, ffmpeg {number(row['beside'])}"
            beside.append(Bar(_codec(name), row["ratio"], detail=detail))
        if name.startswith("peak memory") and finite(row["p50"]):
            size, _, codec = name.partition(", ")[2].partition(" to ")
            memory.append(measured(row, CODECS.get(codec, codec), group=size))
    yield Figure(
        "Converting beside the ffmpeg command line",
        "Speed as a multiple of ffmpeg's with the same encoder and settings, median of paired rounds of CPU time. Ours "
        "also decodes every written frame again to check it.",
        "times",
        "higher",
        beside,
        result,
        (Mark(1.0, "ffmpeg", "limit"), Mark(0.9, "bar 0.9")),
    )
    yield Figure(
        "Memory of a converting worker",
        "Peak by the size of the source video, which is streamed: it hardly grows.",
        "MB",
        "lower",
        memory,
        result,
        (Mark(400, "bar 400"),),
        main=False,
    )


def _codec(name: str) -> str:
    codec = name.rpartition(", ")[2]
    return CODECS.get(codec, codec)


def _loader(result: Result) -> Iterator[Figure]:
    starts, paths = [], []
    for row in result.rows:
        unit, name = row.get("unit"), row["path"]
        if unit == "clips per CPU-second" and "bar" not in row:
            paths.append(measured(row, name, role="ours" if name.startswith("unstill") else "peer"))
        if unit == "CPU-ms per clip":
            who, _, where = name.partition(", start ")
            starts.append(measured(row, f"from frame {where}", role=_role(name), group=who))
    yield Figure(
        "Delivering random clips, one CPU core",
        "The same clips of the same VP9 videos on every path. DALI's CPU decoder is there for machines without a GPU, "
        "it is no fast path; what our format buys is the distance between the two bars that DALI decodes.",
        "clips per CPU-second",
        "higher",
        paths,
        result,
    )
    yield Figure(
        "Cost of a clip by where in the video it starts",
        "DALI's decoder does not seek: fed whole files, a late clip costs all frames before it. Fed only the GOPs that "
        "the clip touches, it costs the same everywhere.",
        "CPU-ms per clip",
        "lower",
        starts,
        result,
    )
    yield from _loader_on_gpu(result)


def _loader_on_gpu(result: Result) -> Iterator[Figure]:
    timed = [row for row in result.rows if finite(row.get("clips_per_s"))]
    decoders = [row for row in result.rows if finite(row.get("frames_per_s"))]
    final = [row for row in timed if " threads x " not in row["path"] and ", start " not in row["path"]]
    bars = []
    for row in final:
        name, shape = row["path"].rpartition(" ")[::2]
        bars.append(Bar(name.rstrip(","), row["clips_per_s"], role=_role(name), group=f"clips of {shape}"))
        if finite(row.get("of_limit")) and row["of_limit"]:
            limit = row["clips_per_s"] / row["of_limit"]
            bars.append(Bar("limit: sequential decoding", limit, role="limit", group=f"clips of {shape}"))
    bars.sort(key=lambda bar: bar.group)
    yield Figure(
        "Delivering random clips to the GPU",
        "Wall clock. The limit is what the video decoders deliver of whole files, over the frames that they decode "
        "for a clip.",
        "clips/s",
        "higher",
        bars,
        result,
    )
    starts = [row for row in timed if ", start " in row["path"]]
    bars = [
        Bar(f"from frame {row['path'].rpartition(' ')[2]}", row["clips_per_s"], role=_role(row["path"]), group=who)
        for row in starts
        for who in [row["path"].partition(", start ")[0]]
    ]
    yield Figure("Clips by where in the video they start", "On the GPU.", "clips/s", "higher", bars, result)
    sweep = [Bar(row["path"], row["clips_per_s"]) for row in timed if " threads x " in row["path"]]
    yield Figure("Decoder threads and pipelines", "16x2 clips.", "clips/s", "higher", sweep, result, main=False)
    bars = [Bar(row["path"].removeprefix("limit: "), row["frames_per_s"], role="limit") for row in decoders]
    what = "What the decoders can do at best: whole files from first to last frame."
    yield Figure("Sequential decoding", what, "frames/s", "higher", bars, result, main=False)


def _role(name: str) -> Role:
    return "ours" if name.startswith("unstill") else "limit" if name.startswith("limit") else "peer"


def _growth(result: Result) -> Iterator[Figure]:
    (start_bar, _, _), (memory_bar, _, _) = (GROWTH_BARS[c] for c in ("start_up_s", "memory_bytes_per_sample"))
    size = lambda row: f"{row['samples']:,} videos"  # noqa: E731
    yield Figure(
        "Memory for each video of a dataset",
        "What a process grows by to open the index and draw shuffled clips. The bar is for a million; ten thousand "
        "carry the fixed costs alone.",
        "bytes a video",
        "lower",
        [Bar(size(row), row["memory_bytes_per_sample"]) for row in result.rows],
        result,
        (Mark(memory_bar, f"bar {memory_bar}"),),
    )
    yield Figure(
        "Start-up against the size of a dataset",
        "From opening the index to the addresses of the first clips of two epochs, each shuffled as a whole.",
        "ms",
        "lower",
        [Bar(size(row), row["start_up_s"] * 1e3) for row in result.rows],
        result,
        (Mark(start_bar * 1e3, f"bar {start_bar * 1e3:,.0f}"),),
    )


_PROVIDERS = {"triton": "unstill (Triton)", "compiled": "torch.compile", "eager bf16": "eager torch, bf16"}
_PROVIDERS |= {"eager fp32": "eager torch, fp32", "eager": "eager torch"}
_STATIC = {"frame": "static clip as one frame", "full": "static clip written out"}


def _kernels(result: Result) -> Iterator[Figure]:
    timed = [row for row in result.rows if row.get("kind") == "measured" and finite(row.get("p50"))]
    clips = [row for row in timed if row["kernel"] == "clip_prep"]
    bars = []
    for row in clips:
        group = f"{_STATIC[row['static']]}, {row['layout']}"
        if not any(bar.group == group for bar in bars) and finite(row.get("of_copy")):
            copy = Bar("limit: device copy of the same bytes", row["p50"] * row["of_copy"], role="limit", group=group)
            bars.append(copy)
        bars.append(measured(row, _PROVIDERS[row["provider"]], role=_kernel_role(row), group=group))
    yield Figure("clip_prep: frames to both clips", "One training batch.", "ms", "lower", bars, result)
    losses = [row for row in timed if row["kernel"] == "static_losses"]
    bars = [
        measured(row, _PROVIDERS.get(row["provider"], row["provider"]), role=_kernel_role(row), group=_loss_group(row))
        for row in losses
    ]
    yield Figure("static_losses: losses and gradient", "In one pass over the logits.", "ms", "lower", bars, result)
    if timed:
        return
    predicted = [row for row in result.rows if row["kernel"] == "clip_prep" and finite(row.get("megabytes"))]
    bars = [
        Bar(_PROVIDERS[row["provider"]], row["megabytes"], role=_kernel_role(row), group=_STATIC[row["static"]])
        for row in sorted(predicted, key=lambda row: (row["static"], row["provider"] != "triton", row["megabytes"]))
    ]
    shape = predicted[0]["shape"] if predicted else ""
    yield Figure(
        "Bytes that making both clips must move",
        f"Predicted from the shapes ({shape}), not measured: there was no GPU. For torch.compile it is the best case.",
        "MB",
        "lower",
        bars,
        result,
    )


def _kernel_role(row: dict) -> Role:
    return "ours" if row["provider"] == "triton" else "peer"


def _loss_group(row: dict) -> str:
    return f"{row['shape']} logits" + (", CUDA graph" if row.get("cudagraph") else "")


def _registers(result: Result) -> Iterator[Figure]:
    bars = []
    for kernel in dict.fromkeys(row["kernel"] for row in result.rows):
        rows = [row for row in result.rows if row["kernel"] == kernel]
        spilled = max(row["spill_store_bytes"] + row["spill_load_bytes"] for row in rows)
        detail = f"{len(rows)} configurations, {spilled} bytes spilled"
        bars.append(Bar(kernel, max(row["registers"] for row in rows), detail=detail))
    yield Figure(
        "Registers of the compiled kernels",
        "The hungriest configuration of each, compiled for sm_90 by ptxas. Up to 64, a multiprocessor holds four "
        "programs of 256 threads.",
        "registers a thread",
        "lower",
        bars,
        result,
        (Mark(64, "bar 64"),),
    )


def _step(result: Result) -> Iterator[Figure]:
    rows = [row for row in result.rows if "variant" in row and finite(row.get("p50"))]
    first: dict[tuple, dict] = {}
    for row in rows:  # the first batch of a variant is for times
        first.setdefault((row["model"], row["variant"]), row)
    rows = sorted(first.values(), key=lambda row: list(dict.fromkeys(r["model"] for r in rows)).index(row["model"]))
    clock = "CPU time, one thread" if result.device == "cpu" else "wall clock"
    named = [(row, row["variant"].replace("reference", "official arithmetic"), _step_role(row)) for row in rows]
    group = lambda row: f"{row['model']}, {row['batch']} clips"  # noqa: E731
    yield Figure(
        "One training step",
        f"Forward, backward and AdamW; {clock}. Cross entropy, which has no static clips and no penalty, is the floor.",
        "ms",
        "lower",
        [measured(row, name, role=role, group=group(row)) for row, name, role in named],
        result,
    )
    held = [item for item in named if finite(item[0].get("peak_mib"))]
    bars = [Bar(name, row["peak_mib"], role=role, group=group(row)) for row, name, role in held]
    yield Figure("Memory of a training step", "Peak of what the allocator holds.", "MiB", "lower", bars, result)


def _recipes(result: Result) -> Iterator[Figure]:
    for title, column, unit in (
        ("Arithmetic of a recipe's step", "tflop_per_clip", "TFLOP a clip"),
        ("Memory of a recipe's step", "peak_mib", "MiB"),
    ):
        bars = [
            Bar(
                _first(row["recipes"]),
                row[column],
                role="ours" if "albar" in row["recipes"] else "peer",
                detail=_shape(row),
            )
            for row in result.rows
            if finite(row.get(column))
        ]
        how = f"{result.rows[0]['precision']}, {'compiled' if result.rows[0]['compiled'] else 'eager'}"
        yield Figure(title, f"Forward, backward and update, {how}.", unit, "lower", bars, result)


def _first(names: str) -> str:
    first, *others = names.split(", ")
    return f"{first} and {len(others)} more" if others else first


def _shape(row: dict) -> str:
    return f"{row['model']}, {row['clip']}, batch {row['batch']}"


def _step_role(row: dict) -> Role:
    if row["variant"].startswith("cross entropy"):
        return "limit"
    return "ours" if row["variant"].startswith("albar compiled") else "peer"


def _demo(result: Result) -> Iterator[Figure]:
    models = {"baseline": ("cross entropy", "peer"), "albar": ("ALBAR", "ours")}
    bars = []
    for measure, (words, better) in MEASURES.items():
        for model, (name, role) in models.items():
            values = [row[measure] for row in result.rows if row["model"] == model]
            group = f"{words} ({better} is better)"
            bars.append(Bar(name, mean(values), min(values), max(values), role=role, group=group))
    seeds = len({row["seed"] for row in result.rows})
    reading = f"Mean of {seeds} seeds on videos where scene and looks give the class away in 95 % of the training set."
    spread = "lowest to highest seed"
    yield Figure("What the demonstration's models read", reading, "percent", "", bars, result, whiskers=spread)


def _bias(result: Result) -> Iterator[Figure]:
    rows = [row for row in result.rows if "seed" not in row]
    for measure, (words, better) in MEASURES.items():
        bars = []
        for row in rows:
            middle, sd = row[measure], row.get(f"{measure}_sd", 0.0)
            role = "ours" if "albar" in row["method"] else "peer"
            ends = (max(middle - sd, 0.0), middle + sd) if sd else (None, None)
            bars.append(Bar(row["method"].replace("_", " "), middle, *ends, role=role))
        reading = f"Mean of {max(row['n'] for row in rows)} seeds, every method on the same videos." if rows else ""
        main = measure in ("contrasted", "anti")
        title = f"Every method: {words}"
        spread = "one standard deviation to either side"
        yield Figure(title, reading, "percent", better, bars, result, main=main, whiskers=spread)


def _bias_tuning(result: Result) -> Iterator[Figure]:
    rows = [row for row in result.rows if "seed" not in row]
    for measure in ("scuba", "scufo", "contrasted"):
        words, better = MEASURES[measure]
        bars = []
        for row in rows:
            name = f"{row['constant'].split('.')[1]} {row['value']:g}" if "value" in row else "cross entropy"
            bars.append(Bar(name, row[measure], role="peer", group=row["method"].replace("_", " ")))
        reading = f"Mean of {max(row['n'] for row in rows)} seeds that the table of all methods does not use."
        yield Figure(f"Every rival's main constant: {words}", reading, "percent", better, bars, result, main=False)


def _train(result: Result) -> Iterator[Figure]:
    bars = []
    for row in result.rows:
        real = row["loader"] == "real"
        name = "shards through the loader" if real else "limit: batches that are there already"
        wait = row.get("data_wait_percent")
        detail = f"data wait {max(wait, 0.0):.1f} %" if finite(wait) else ""
        group = f"{row['method']}, {row['model']}, {row['clip']}, batch {row['batch']}"
        bars.append(Bar(name, row["clips_per_s"], role="ours" if real else "limit", group=group, detail=detail))
    reading = (
        "The same run with the real loader and with an ideal one, in turns: what lies between is waiting for data."
    )
    yield Figure("Training end to end", reading, "clips/s", "higher", bars, result)


def _roofline(result: Result) -> Iterator[Figure]:
    bars, words = [], [row["verdict"] for row in result.rows if "verdict" in row]
    for row in result.rows:
        if "stage" in row and finite(row.get("of_limit_percent")):
            rates = f"{number(row['delivered_clips_per_s'])} of {number(row['limit_clips_per_s'])} clips/s"
            detail = f"{row['arithmetic']}; needed: {number(row['needed_clips_per_s'])} clips/s"
            bars.append(Bar(f"{row['stage']}: {rates}", row["of_limit_percent"], detail=detail))
    title = "Each stage beside what the machine allows"
    yield Figure(title, " ".join(words), "percent of the limit", "", bars, result, (Mark(100.0, "limit", "limit"),))


_KNOWN: dict[str, Callable[[Result], Iterable[Figure]]] = {
    "convert": _convert,
    "loader": _loader,
    "loader_on_cpu": _loader,
    "growth": _growth,
    "kernels": _kernels,
    "kernels_sm90": _registers,
    "step": _step,
    "recipes": _recipes,
    "train": _train,
    "train_on_cpu": _train,
    "roofline": _roofline,
    "roofline_on_cpu": _roofline,
    "demo": _demo,
    "bias": _bias,
    "bias_tuning": _bias_tuning,
}
