"""What was measured on a GPU, from the files of the one that was at hand."""

from blocks import table
from results import Results

GPU = "nvidia-h200"


def blocks(results: Results) -> dict[str, str]:
    """``gpu``: the table of docs/gpu.md."""
    heads = ["what", "measured", "file"]
    training = "training r3d_18 on 16x2x112 clips, cross entropy, batch 32: "
    one_step = "a step of r3d_18, 32 clips, bf16, compiled: "
    layers = "attention, double backward, one layer (Video Swin-T; VideoMAE-B): unstill"
    lines = [
        ("codecs that NVDEC decodes", codecs(results), "facts"),
        *((f"clips/s to the GPU, {codec}: {what}", said, "loader") for codec, what, said in loader(results)),
        *((training + what, said, "train") for what, said in train(results)),
        *((one_step + what, said, "step") for what, said in step(results)),
        ("Recast's step over ALBAR's, two views, r3d_18, eager: with ALBAR; without", recast(results), "recast_cost"),
        (
            "`clip_prep` at 32x32x224x224, static clip as one frame: unstill, torch.compile, eager bf16",
            prep(results),
            "kernels",
        ),
        ("the same, share of the rate of a copy: one frame; written out", share(results), "kernels"),
        ("`step_boundary` over `clip_prep` alone (it has the losses as well)", boundary(results), "kernels"),
        (
            "losses and gradient, 64x400, CUDA graph: unstill in torch.compile, torch.compile alone, eager",
            losses(results),
            "kernels",
        ),
        (layers, attention(results, "unstill"), "attention"),
        ("the same: matrices of tokens by tokens", attention(results, "math attention"), "attention"),
        ("the same: PyTorch's math kernel", attention(results, "torch SDPA, math kernel"), "attention"),
    ]
    return {"gpu": table(heads, [[what, said, f"`{file}-{GPU}.json`"] for what, said, file in lines], left=3)}


def _row(results: Results, file: str, title: str) -> dict:
    return results.row(f"{file}-{GPU}", title)


def codecs(results: Results) -> str:
    """Those that a video was decoded of, and those that were not."""
    rows = {row["title"].split()[0]: row["value"] for row in results.rows(f"facts-{GPU}") if "decodes" in row["title"]}
    yes, no = ([name for name, value in rows.items() if value == wanted] for wanted in (1, 0))
    return ", ".join(yes) + f"; not {', '.join(no)}"


def loader(results: Results) -> list[tuple[str, str, str]]:
    """(codec, paths, clips/s)."""
    found = []
    for codec in ("H.264", "HEVC"):
        rows = [r for r in results.rows(f"loader-{GPU}") if r.get("group") == f"clips of {codec} 16x2"]
        names = "; ".join(row["label"].removeprefix("unstill, ") for row in rows)
        found.append((codec, names, "; ".join(f"{row['value']:.0f}" for row in rows)))
    return found


def train(results: Results) -> list[tuple[str, str]]:
    """From shards, and from batches that are there already."""
    real, ideal = results.rows(f"train-{GPU}")
    waits = f"{real['data_wait_percent']:.0f} % of the time it waits for data"
    return [
        ("from shards", f"{real['value']:.0f} clips/s ({waits})"),
        ("from batches that are there", f"{ideal['value']:,.0f} clips/s"),
    ]


def step(results: Results) -> list[tuple[str, str]]:
    """Times, shares of the peak, memory."""
    albar, plain, ratio = results.rows(f"step-{GPU}")
    times = f"{albar['value']:.1f}; {plain['value']:.1f} ms; {ratio['value']:.2f}"
    return [
        ("ALBAR; cross entropy; ratio", f"{times} (target {ratio['at_most']:g} missed)"),
        ("share of the peak", f"{albar['mfu']:.2f}; {plain['mfu']:.2f}"),
        ("peak memory", f"{albar['peak_mib'] / 1024:.1f}; {plain['peak_mib'] / 1024:.1f} GiB"),
    ]


def recast(results: Results) -> str:
    """Both ratios."""
    rows = [row for row in results.rows(f"recast_cost-{GPU}") if row["title"].startswith("Recast")]
    return "; ".join(f"{row['value']:.2f} (target {row['at_most']:g})" for row in rows)


def _kernel_rows(results: Results, kernel: str, **facts: object) -> list[dict]:
    rows = [r for r in results.rows(f"kernels-{GPU}") if r.get("kind") == "measured" and r.get("kernel") == kernel]
    return [row for row in rows if all(row.get(name) == value for name, value in facts.items())]


def prep(results: Results) -> str:
    """Milliseconds of three providers."""
    rows = _kernel_rows(results, "clip_prep", static="frame", layout="ncdhw")
    by = {row["provider"]: row["value"] for row in rows}
    return ", ".join(f"{by[name]:.2f}" for name in ("triton", "compiled", "eager bf16")) + " ms"


def share(results: Results) -> str:
    """Of the device's copy, both layouts."""
    return "; ".join(
        ", ".join(
            f"{row['of_copy']:.2f}" for row in _kernel_rows(results, "clip_prep", static=static, provider="triton")
        )
        for static in ("frame", "full")
    )


def boundary(results: Results) -> str:
    """All four cases."""
    return ", ".join(f"{row['times_clip_prep']:.2f}" for row in _kernel_rows(results, "step_boundary"))


def losses(results: Results) -> str:
    """Microseconds of a replayed graph."""
    rows = _kernel_rows(results, "static_losses", shape="64x400", cudagraph=True)
    by = {row["provider"]: 1000 * row["value"] for row in rows}
    return ", ".join(f"{by[name]:.1f}" for name in ("triton compiled", "compiled", "eager")) + " µs"


def attention(results: Results, provider: str) -> str:
    """Milliseconds of both layers."""
    layers = ("Video Swin-T, stage 1, one clip", "VideoMAE-B, two clips")
    titles = [f"double backward, {layer}, {provider}" for layer in layers]
    return "; ".join(f"{_row(results, 'attention', title)['value']:.2f}" for title in titles) + " ms"
