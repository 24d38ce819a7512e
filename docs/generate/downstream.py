"""What frozen features are good for in long procedural videos, from ``downstream.json``."""

from typing import Any

from blocks import paragraph, table
from results import Results

NAME = "downstream"
TASKS = {"anomaly": "ROC-AUC", "localisation": "mAP"}
SPLITS = {
    "free": "Where scene and actor are independent of the label",
    "alike": "Where they follow it as in training",
}

WIDE = 10  # points


def blocks(results: Results) -> dict[str, str]:
    """``downstream: ...`` of docs/downstream.md."""
    if not results.has(NAME):
        return {f"downstream: {name}": "Not measured yet." for name in ("table", "gains", "seeds", "cost")}
    rows = [row for row in results.rows(NAME) if "encoder" in row]
    return {
        "downstream: table": measures(rows),
        "downstream: gains": "\n\n".join(paragraph(gains(rows, split)) for split in SPLITS),
        "downstream: seeds": paragraph(seeds(rows)),
        "downstream: cost": paragraph(cost(results)),
    }


def measures(rows: list[dict[str, Any]]) -> str:
    """Every encoder, task and set of test videos, with its interval."""
    found = {(row["label"], row["task"], row["appearance"]): row for row in rows}
    columns = [(task, split) for task in TASKS for split in SPLITS]
    lines = []
    for name in dict.fromkeys(row["label"] for row in rows):
        own = [found[name, *column] for column in columns]
        lines.append([name, *(f"{row['value']:.1f} [{row['p20']:.1f}, {row['p80']:.1f}]" for row in own)])
    heads = [f"{task} ({TASKS[task]}), {split}" for task, split in columns]
    return table(["encoder", *heads], lines)


def gains(rows: list[dict[str, Any]], split: str) -> str:
    """How far each encoder is ahead of cross entropy, and where it is not."""
    ahead, level, behind = [], [], []
    for row in rows:
        if row["appearance"] != split or "gain" not in row:
            continue
        ends = f"[{row['gain_low']:+.1f}, {row['gain_high']:+.1f}]"
        higher = f"higher in {seeds_ahead(rows, row)} of {row['n']} seeds"
        said = f"{row['label']} in {row['task']} ({row['gain']:+.1f} points of {TASKS[row['task']]} {ends}, {higher})"
        (ahead if row["gain_low"] > 0 else behind if row["gain_high"] < 0 else level).append(said)
    parts = []
    if ahead:
        parts.append(f"ahead of cross entropy: {', '.join(ahead)}")
    if level:
        parts.append(f"no clear difference: {', '.join(level)}")
    if behind:
        parts.append(f"behind cross entropy: {', '.join(behind)}")
    return f"{SPLITS[split]} – {'; '.join(parts)}."


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


def cost(results: Results) -> str:
    """CPU time to train the anomaly head."""
    (row,) = (row for row in results.rows(NAME) if "at_most" in row)
    return (
        f"Sultani's head trains {row['steps']:,} batches on 1,610 feature files of {row['rows']} rows and width "
        f"{row['width']} in {row['value']:.0f} s of CPU time on one core (at most {row['at_most']:.0f} s were allowed)."
    )
