"""``python docs/generate [--check] [tables|reference]``: write what README and docs take from result files and code.

Tables and sentences with measured numbers stand between ``<!-- begin NAME -->`` and ``<!-- end NAME -->`` and come from
``bench/results``. The pages of ``docs/reference`` come from the options and docstrings of the code. ``--check`` writes
nothing and fails when something is out of date.
"""

import argparse
import sys
from pathlib import Path

import camera
import costs
import demonstration
import downstream
import every_method
import gpu
import measured
import witnesses
from blocks import with_blocks
from results import Results

REPOSITORY = Path(__file__).parents[2]
PAGES = ("README.md", *(f"docs/{path.name}" for path in sorted((REPOSITORY / "docs").glob("*.md"))))


def tables() -> dict[Path, str]:
    """The pages with blocks, as they should be."""
    results = Results(REPOSITORY / "bench" / "results")
    blocks = {
        name: block
        for part in (camera, costs, demonstration, downstream, every_method, gpu, measured, witnesses)
        for name, block in part.blocks(results).items()
    }
    pages = {REPOSITORY / name: (REPOSITORY / name).read_text() for name in PAGES}
    written = {path: with_blocks(text, blocks, str(path.relative_to(REPOSITORY))) for path, text in pages.items()}
    used = {name for name in blocks for text in pages.values() if f"<!-- begin {name} -->" in text}
    if unused := sorted(set(blocks) - used):
        sys.exit(f"no page has a place for the blocks {', '.join(unused)}")
    return written


def reference() -> dict[Path, str]:
    """The pages of docs/reference, as they should be."""
    import api
    import commands

    pages = {"commands.md": commands.page(), "recipes.md": commands.recipes_page(), "api.md": api.page()}
    return {REPOSITORY / "docs" / "reference" / name: text for name, text in pages.items()}


def main() -> None:
    """Write the pages, or with ``--check`` name those that are out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a page is out of date")
    parser.add_argument("part", nargs="?", choices=("tables", "reference"), help="by default both")
    arguments = parser.parse_args()
    parts = {"tables": tables, "reference": reference}
    out_of_date = []
    for name in [arguments.part] if arguments.part else parts:
        pages = parts[name]()
        stale = [path for path, text in pages.items() if not path.exists() or path.read_text() != text]
        out_of_date += [str(path.relative_to(REPOSITORY)) for path in stale]
        if arguments.check:
            continue
        for path in stale:
            path.parent.mkdir(exist_ok=True)
            path.write_text(pages[path])
            print(f"written: {path.relative_to(REPOSITORY)}")
    if arguments.check and out_of_date:
        sys.exit(f"out of date: {', '.join(out_of_date)}; run `python docs/generate`")


main()
