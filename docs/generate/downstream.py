"""What frozen features are good for in procedural videos, from ``downstream.json``."""

from typing import Any

from blocks import paragraph, table
from results import Results

NAME = "downstream"
TASKS = {
    "anomaly": "ROC-AUC",
    "localisation": "mAP",
    "detection": "frame-mAP",
    "detection_videos": "video-mAP",
    "transfer": "top-1",
}
NAMES = {"detection_videos": "detection of tubes"}
SPLITS = ("free", "alike")

WIDE = 10  # points
BLOCKS = ("table", "gains", "seeds", "why", "cost")


def blocks(results: Results) -> dict[str, str]:
    """``downstream: ...`` of docs/downstream.md."""
    if not results.has(NAME):
        return {f"downstream: {name}": "Not measured yet." for name in BLOCKS}
    everything = [row for row in results.rows(NAME) if "encoder" in row]
    rows = [row for row in everything if row["task"] in TASKS]
    return {
        "downstream: table": measures(rows),
        "downstream: gains": f"{gains(rows)}\n\n{paragraph(not_ahead(rows))}",
        "downstream: seeds": paragraph(seeds(rows)),
        "downstream: why": paragraph(why(everything)),
        "downstream: cost": paragraph(cost(results)),
    }


def measures(rows: list[dict[str, Any]]) -> str:
    """Every task and set of test videos by encoder, with its interval."""
    encoders = list(dict.fromkeys(row["label"] for row in rows))
    found = {(row["task"], row["appearance"], row["label"]): row for row in rows}
    lines = []
    for task, measure in TASKS.items():
        for split in SPLITS:
            own = [found[task, split, name] for name in encoders if (task, split, name) in found]
            if own:
                words = f"{NAMES.get(task, task)} ({measure}), {split}"
                lines.append([words, *(f"{row['value']:.1f} [{row['p20']:.1f}, {row['p80']:.1f}]" for row in own)])
    return table(["task", *encoders], lines)


def gains(rows: list[dict[str, Any]]) -> str:
    """Points above cross entropy, with the interval and the number of seeds that are ahead."""
    encoders = list(dict.fromkeys(row["label"] for row in rows if "gain" in row))
    lines: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        if "gain" in row:
            ends = f"[{row['gain_low']:+.1f}, {row['gain_high']:+.1f}]"
            said = f"{row['gain']:+.1f} {ends}, {seeds_ahead(rows, row)} of {row['n']}"
            lines.setdefault((row["task"], row["appearance"]), []).append(said)
    ordered = [(task, split) for task in TASKS for split in SPLITS if (task, split) in lines]
    return table(
        ["points above cross entropy, seeds ahead", *encoders],
        [[f"{NAMES.get(task, task)}, {split}", *lines[task, split]] for task, split in ordered],
    )


def not_ahead(rows: list[dict[str, Any]]) -> str:
    """Where the interval of the gain is not above 0."""
    own = [row for row in rows if row.get("gain_low", 1) <= 0]
    said = [f"{row['label']} in {NAMES.get(row['task'], row['task'])}, {row['appearance']}" for row in own]
    return f"Not clearly ahead: {'; '.join(said)}. All others are." if said else "Every interval is above 0."


def seeds_ahead(rows: list[dict[str, Any]], row: dict[str, Any]) -> int:
    """In how many seeds an encoder is above cross entropy."""
    same = [r for r in rows if (r["task"], r["appearance"]) == (row["task"], row["appearance"]) and "gain" not in r]
    return sum(row[name] > same[0][name] for name in row if name.startswith("seed_"))


def seeds(rows: list[dict[str, Any]]) -> str:
    """Encoders whose seeds lie far apart, with the lowest and the highest."""
    said = []
    for row in rows:
        if row.get("sd", 0) > WIDE:
            values = [value for name, value in row.items() if name.startswith("seed_")]
            said.append(f"{row['label']} in {row['task']}, {row['appearance']}: {min(values):.1f} to {max(values):.1f}")
    wide = f"Where the standard deviation over seeds is above {WIDE} points, from the lowest to the highest: "
    wide += f"{'; '.join(said)}. "
    return (wide if said else "") + "Intervals do not contain what another seed would give."


def why(rows: list[dict[str, Any]]) -> str:
    """What the anomaly head misses in the features of Recast's ordinary form."""
    found = {row["task"]: row for row in rows if row["encoder"] == "recast" and row["appearance"] == "free"}
    seeds = [name for name in found["anomaly"] if name.startswith("seed_")]
    turns = ("anomaly_rot_cw", "anomaly_rot_ccw")
    pairs = "; ".join(
        f"{' and '.join(f'{found[turn][seed]:.0f}' for turn in turns)} in seed {seed[5:]}" for seed in seeds
    )
    known = [found["anomaly_windows"][seed] for seed in seeds]
    return (
        "The features of Recast's ordinary form hold the turns in every seed: a linear layer that learns them from "
        f"labels of windows has a ROC-AUC of {min(known):.1f} to {max(known):.1f}. Sultani's head learns from labels "
        "of videos, and only the highest score of each counts. Its ROC-AUC for clockwise and for counter-clockwise "
        f"turns alone is {pairs}: where a value is low it has learned one of two kinds of anomaly."
    )


def cost(results: Results) -> str:
    """CPU time to train the anomaly head."""
    (row,) = (row for row in results.rows(NAME) if "at_most" in row)
    return (
        f"Sultani's head trains {row['steps']:,} batches on 1,610 feature files of {row['rows']} rows and width "
        f"{row['width']} in {row['value']:.0f} s of CPU time on one core (at most {row['at_most']:.0f} s were allowed)."
    )
