"""What the gradient penalty, protection and the recipes' steps cost, from their result files."""

from blocks import paragraph, table
from results import Results

PENALTY, STEP, ATTENTION, SAFETY, FUZZ = "penalty-cost", "step-cpu", "attention-cpu", "safety-cpu", "fuzz"
CAMPAIGNS = {  # what the faults are in, by the campaign's name
    "index": "a data set's index",
    "columns": "one column of an index",
    "mp4": "videos, checksums recomputed: DALI",
    "mp4-cores": "the same: libavcodec in the process",
    "mp4-isolate": "the same: `--loader.isolate`",
    "manifests": "manifests and plans",
    "shards": "shards, under `verify`",
    "tars": "WebDataset tars",
    "lists": "lists of videos",
    "classes": "class lists",
    "masks": "masks",
    "checkpoint": "checkpoints",
    "export": "exported folders",
    "results": "saved logits",
}
RECIPES, BATCHES = "recipes-plan", "batch_size"
LAYERS = {  # the file's words, as in its titles and as an option
    "torchvision's layers": "off",
    "closed attention": "attention",
    "closed attention and gelu": "gelu",
    "closed attention and MLP": "mlp",
}


def blocks(results: Results) -> dict[str, str]:
    """``penalty: ...`` of docs/penalty.md, ``safety`` and ``fuzz`` of security.md, ``recipes: ...`` of recipes.md."""
    return {
        "penalty: bytes": bytes_kept(results),
        "penalty: step": step(results),
        "penalty: fits": fits(results),
        "penalty: compiled": compiled(results),
        "penalty: matters": matters(results),
        "penalty: attention": attention(results),
        "safety": safety(results),
        "fuzz": fuzz(results),
        "recipes: steps": recipes(results),
        "recipes: cards": cards(results),
        "recipes: batches": batches(results),
    }


def recipes(results: Results) -> str:
    """What a step of each recipe costs, as it was counted."""
    rows = []
    for row in results.rows(RECIPES):
        if "clips_on_8_gb" in row:
            fits = " / ".join(f"{row[f'clips_on_{card}_gb']:,}" for card in (8, 24, 80))
            memory, rate = f"{row['gib_of_a_clip'] * 1024:,.0f}", f"{row['expected_clips_per_s']:,.0f}"
            rows.append([f"`{row['recipe']}`", f"{row['value']:.3g}", memory, fits, rate])
    return table(["recipe", "TFLOP a clip", "MiB a clip", "clips on 8 / 24 / 80 GB", "H100 clips/s"], rows)


def cards(results: Results) -> str:
    """Whether the recipes for videos of one's own fit the card that they name."""
    rows = [
        [f"`{row['recipe']}`", str(row["recipe_batch"]), f"{row['value']:.1f}", f"{row['at_most']:.1f} ({row['card']})"]
        for row in results.rows(RECIPES)
        if "card" in row
    ]
    return table(["recipe", "clips in a step", "GiB of a step", "GiB that torch can use"], rows)


def batches(results: Results) -> str:
    """Whether runs of other batch sizes end alike, by method."""
    if not results.has(BATCHES):
        return "It has not run to its end: one point is the target, not a result."
    rows, lines = results.rows(BATCHES), []
    methods = {"baseline": "cross entropy", "albar": "ALBAR"}
    words = {"iid": "IID", "contrasted": "contrasted"}
    for row in rows:
        if "batch" in row and "n" in row:
            shown = [spread(row, measure) for measure in words]
            lines.append([methods[row["method"]], str(row["batch"]), f"{row['epochs']:g}", f"{row['lr']:g}", *shown])
    said = []
    for row in rows:
        if "largest difference" in row["title"]:
            what = f"{methods[row['method']]}, {words[row['measure']]}"
            found = f"{what}: {row['value']:.1f} points (between {row['between']} clips"
            sure = f"; 95 % interval of that difference {row['low']:+.1f} to {row['high']:+.1f}" if "low" in row else ""
            said.append(f"{found}{sure}), {'met' if row['met'] else 'missed'}")
    seeds = max(row["n"] for row in rows if "n" in row)
    heads = ["", "clips in a step", "epochs", "rate", *words.values()]
    return f"{table(heads, lines)}\n\n" + paragraph(
        f"Percent, mean ± standard deviation over {seeds} seeds. Largest difference of two means, target 1 point: "
        f"{'; '.join(said)}."
    )


def bytes_kept(results: Results) -> str:
    """Kept by one block of Video Swin-T's first stage."""
    title = "kept by a block of swin3d_t's first stage: "
    found = {"cross entropy: the forward alone": results.row(PENALTY, f"{title}cross entropy")}
    for words, option in LAYERS.items():
        row = results.row(PENALTY, f"{title}ALBAR's static pass, closed layers {option}")
        found[f"static pass, {words}"] = row
    rows = [[name, f"{row['value']:,.0f}", f"{row['units_of_tokens_times_width']:.1f}"] for name, row in found.items()]
    return table(["", "MB", "units"], rows)


def step(results: Results) -> str:
    """Memory and operations of a step, over plain cross entropy."""
    real = {row["title"]: row for row in results.rows(PENALTY) if "real memory over" in row["title"]}
    rows = []
    for words in LAYERS:
        name = f"swin3d_t, ALBAR, {words}, "
        measured = real.get(f"{name}one clip: real memory over cross entropy", {})
        six = "6 clips, static pass in 3 parts: counted memory over cross entropy"
        rows.append(
            [
                words,
                f"{results.value(PENALTY, f'{name}one clip: counted memory over cross entropy'):.2f}",
                f"{measured['value']:.2f}" if measured else "",
                f"{results.value(PENALTY, f'{name}{six}'):.2f}",
                f"{results.value(PENALTY, f'{name}one clip: operations over cross entropy'):.2f}",
                f"{measured['cpu_time_over_cross_entropy']:.1f}" if measured else "",
            ]
        )
    heads = ["one clip, counted", "one clip, real", "6 clips, static pass in 3 parts, counted", "operations"]
    return table(["", *heads, "CPU time, real"], rows)


def fits(results: Results) -> str:
    """What cross entropy takes, and how many clips an H100 should hold."""
    operations = results.row(PENALTY, "swin3d_t, ALBAR, closed attention, one clip: operations over cross entropy")
    plain = results.value(PENALTY, "swin3d_t, cross entropy, one clip, real memory")
    card = results.row(PENALTY, "swin3d_t, ALBAR, bf16: clips predicted for one H100 of 80 GB")
    three, one = ([card[f"clips_{kind}_{n}_parts"] for kind in ("attention", "gelu", "mlp")] for n in (3, 1))
    return paragraph(
        "Parts change no operations. Plain cross entropy has "
        f"{operations['tflop'] / operations['value']:.3f} TFLOP and takes {plain:,.0f} MiB a clip. Predicted for one "
        "H100 of 80 GB (78.1 GiB for torch) in bf16, the loader's queue and row statistics included: "
        f"{three[0]} clips with closed attention, {three[1]} with gelu and {three[2]} with MLPs, the static pass in 3 "
        f"parts; in one part {one[0]}, {one[1]} and {one[2]}."
    )


def compiled(results: Results) -> str:
    """The compiled step against one backward and against cross entropy."""
    time, memory, cost = (
        results.value(STEP, f"reduced_swin: cpu {what}")
        for what in ("time over one backward", "memory over one backward", "cost over cross entropy")
    )
    gradients = max(row["value"] for row in results.rows(STEP) if row["title"].startswith("float64 gradients"))
    return paragraph(
        f"Found (`step-cpu.json`, float32, one thread): {time:.2f} times the time; {memory:.2f} of the memory; "
        f"{cost:.2f} times the CPU time of cross entropy; gradients within {gradients:.0e}.".replace("e-0", "e-")
    )


def matters(results: Results) -> str:
    """ALBAR by how often the penalty is taken; empty tables are left out."""
    measures = {"iid": "IID ↑", "scuba": "SCUBA ↑", "scufo": "SCUFO ↓", "contrasted": "Contrasted ↑"}
    measures |= {"scufo_probe": "Probe ↓", "anti": "Anti ↑"}
    parts = []
    for name in filter(results.has, ("penalty", "penalty_search", "penalty_longer", "penalty_deeper")):
        rows = [row for row in results.rows(name) if "n" in row and "iid" in row]
        if not rows:
            continue
        known = [measure for measure in measures if all(measure in row for row in rows)]
        without = {(row["w_adv"], row.get("epochs")): row for row in rows if row["gp_every"] == 0}
        lines = []
        for row in rows:
            plain = without.get((row["w_adv"], row.get("epochs")))
            cost = f"{row['train_cpu_seconds'] / plain['train_cpu_seconds']:.1f}" if plain else ""
            lines.append([row["label"], str(row["n"]), *(spread(row, measure) for measure in known), cost])
        heads = [f"penalty ([`{name}.json`](../bench/results/{name}.json))", "seeds", *(measures[m] for m in known)]
        parts.append(table([*heads, "CPU time / without"], lines))
        parts.append(learns(results.rows(name)))
        parts.append(gaps(results.rows(name)))
    return "\n\n".join(filter(None, parts)) or "Its table has not been made yet."


def learns(rows: list[dict]) -> str:
    """What cross entropy reaches with a network that is not the recipe's."""
    found = [row for row in rows if row["title"].startswith("cross entropy, ")]
    if not found:
        return ""
    reached = ", ".join(f"{row['value']:.1f}" for row in found)
    return paragraph(
        f"With `{found[0]['model']}`: 12 convolutions, 8 of them in residual blocks. Cross entropy reaches an IID of "
        f"{reached} with it."
    )


def gaps(rows: list[dict]) -> str:
    """How far each setting is from no penalty, and whether the seeds tell the two apart."""
    found = [row for row in rows if row["title"].endswith("above no penalty") and row.get("pooled_sd")]
    if not found:
        return ""
    said = [
        f"{row['title'].partition(', contrasted')[0]} {row['value']:+.1f} points "
        f"({abs(row['value']) / row['pooled_sd']:.1f} standard deviations of a run)"
        for row in found
    ]
    apart = max(row["value"] / row["pooled_sd"] for row in found) >= 2
    return paragraph(
        f"Contrasted accuracy against no penalty: {'; '.join(said)}.",
        "" if apart else "So these trainings are no evidence for the penalty, nor for any approximation of it.",
    )


def spread(row: dict, name: str) -> str:
    """Mean and standard deviation over seeds."""
    return f"{row[name]:.1f}" + (f" ± {row[f'{name}_sd']:.1f}" if f"{name}_sd" in row else "")


def attention(results: Results) -> str:
    """One attention's double backward: what is kept for it, and its time."""
    rows = []
    for shape in ("Video Swin-T, stage 1, 16 windows", "VideoMAE-B, one clip, two heads"):
        for form in ("unstill", "math attention", "torch SDPA, math kernel"):
            kept = results.value(ATTENTION, f"kept for the double backward, {shape}, {form}")
            time = results.value(ATTENTION, f"double backward, {shape}, {form}")
            rows.append([shape, form, f"{kept:.3g}", f"{time:.0f}"])
    return table(["", "", "MB kept besides inputs", "CPU ms of the double backward"], rows, 2)


def safety(results: Results) -> str:
    """CPU time with protection over CPU time without it."""
    measured = [row for row in results.rows(SAFETY) if row["unit"] == "times"]
    start = results.value(SAFETY, "two decoding processes started, and the first batch")
    rows = [[row["title"], f"{row['value']:.2f} ({row['p20']:.2f} to {row['p80']:.2f})"] for row in measured]
    rows.append(["two decoding processes started, and the first batch delivered", f"{start:.1f} CPU seconds"])
    return table(["", "CPU time with / without"], rows)


def fuzz(results: Results) -> str:
    """How many files with random faults were read, and how it ended."""
    rows = []
    for row in results.rows(FUZZ):
        outcomes = dict(part.rsplit(": ", 1) for part in row["outcomes"].split(", "))
        refused, bad = int(outcomes.pop("one line", 0)), int(outcomes.pop("bad clips", 0))
        read = row["cases"] - refused - bad - row["value"]
        counts = (row["cases"], refused, bad, read, row["value"])
        rows.append([CAMPAIGNS[row["campaign"]], *(f"{count:,}" for count in counts)])
    heads = ["faults in", "cases", "one line", "bad clips left out", "read, or the fault named", "as none may"]
    file = results.file(FUZZ)
    seeds = ", ".join(str(seed) for seed in sorted({row["seed"] for row in file["rows"]}))
    total = sum(row["cases"] for row in file["rows"])
    return f"{file['date'][:10]}, seed {seeds}, {total:,} cases (`fuzz.json`):\n\n" + table(heads, rows)
