"""How well the camera's motion is found, from ``camera-cpu.json``."""

from blocks import paragraph, table
from results import Results

FILE = "camera-cpu"


def blocks(results: Results) -> dict[str, str]:
    """``camera: error`` and ``camera: real`` of docs/recast.md."""
    rows = results.rows(FILE)
    return {"camera: error": error([row for row in rows if "camera" in row]), "camera: real": real(rows)}


def error(rows: list[dict]) -> str:
    """Error in pixels by camera, side of the clips and kind."""
    by: dict[tuple[int, str], dict[str, dict]] = {}
    for row in rows:
        by.setdefault((row["size"], row["camera"]), {})[row["kind"]] = row
    lines = []
    for (size, camera), kinds in by.items():
        one = kinds["similarity"]
        errors = [f"{row['value']:.2f}" for row in kinds.values()]
        still = f"{one['still_as_filmed']:.0f} → {one['still_after']:.0f}"
        lines.append([camera, str(size), f"{one['as_filmed']:.2f}", *errors, still, f"{one['helped']:.0f}"])
    kinds = list(next(iter(by.values())))
    return table(["camera", "side", "as filmed", *kinds, "stands still, %", "taken out, %"], lines)


def real(rows: list[dict]) -> str:
    """Shares that stand still in real videos."""
    by: dict[str, dict[str, dict]] = {}
    for row in rows:
        if "video" in row:
            by.setdefault(row["video"], {})[row["kind"]] = row
    filmed = ", ".join(f"{kinds['similarity']['still_as_filmed']:.0f}" for kinds in by.values())
    after = "; ".join(
        f"{kind} " + ", ".join(f"{kinds[kind]['value']:.0f}" for kinds in by.values())
        for kind in next(iter(by.values()))
    )
    helped = ", ".join(f"{kinds['similarity']['helped']:.0f}" for kinds in by.values())
    return paragraph(
        f"Percent of the picture that stand still in five real videos, median of eight clips each: as filmed {filmed}; "
        f"afterwards, by kind: {after}. Taken out (similarity) in {helped} percent of the clips."
    )
