"""Files with random faults, each read in a process of its own. A case must end in one line, a bad clip or right data.

    python tests/fuzz/campaign.py index 800 --seed 7
    python tests/fuzz/campaign.py all --seed 7 --out found.json     # every campaign at its full count

Campaigns: ``index`` (the index of a dataset whose manifest names the right one), ``columns`` (one column of an index
that nothing else vouches for, as in a stranger's dataset: labels and keys may then be anything), ``mp4`` (bytes of
videos, all checksums recomputed, decoded by DALI), ``mp4-cores`` and ``mp4-isolate`` (by libavcodec, in the process and
in children), ``manifests`` (of a dataset, a cache, a shard, and the plan of a conversion), ``shards`` (tars of a
dataset under ``verify``), ``tars`` (WebDataset sources), ``lists`` (videos and classes, every layout), ``classes``,
``masks`` (boxes as pickle, CSV and JSON, run lengths), ``checkpoint`` (weights, config and manifest, its hashes
recomputed), ``export`` (config.json and weights), ``results`` (saved logits, facts, truth). What must not be:
``signal``, ``hang``, ``traceback``, ``memory``, ``wrong data``.
"""

import argparse
import collections
import functools
import json
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dataset_cases as datasets
import run_cases as runs
import source_cases as sources
import torch
from children import FAULTS, alone

torch.set_num_threads(1)  # cases are forked, and a pool of threads does not survive that


@dataclass(frozen=True)
class Campaign:
    """One kind of file.

    Attributes:
        cases: called with a folder that ``prepare`` made, random numbers and a count; yields what reads each case.
        prepare: makes in a folder what the cases change, and returns where it is.
        full: cases of a long run.
    """

    cases: Callable[[Path, random.Random, int], datasets.Cases]
    prepare: Callable[[Path], Path]
    full: int


def _nothing(folder: Path) -> Path:
    return folder


_mixed = functools.partial(datasets.prepare_videos, codecs=("vp9", "h264"))
CAMPAIGNS = {
    "index": Campaign(datasets.index_cases, functools.partial(datasets.prepare_videos, videos=8), 800),
    "columns": Campaign(datasets.column_cases, functools.partial(datasets.prepare_videos, videos=8), 150),
    "mp4": Campaign(datasets.mp4_cases, datasets.prepare_videos, 450),
    "mp4-cores": Campaign(datasets.cores_cases, _mixed, 450),
    "mp4-isolate": Campaign(datasets.isolated_cases, _mixed, 450),
    "manifests": Campaign(datasets.manifest_cases, datasets.prepare_converted, 300),
    "shards": Campaign(datasets.tar_cases, datasets.prepare_converted, 300),
    "tars": Campaign(sources.source_tar_cases, _nothing, 300),
    "lists": Campaign(sources.list_cases, _nothing, 400),
    "classes": Campaign(sources.class_list_cases, _nothing, 100),
    "masks": Campaign(sources.mask_cases, _nothing, 400),
    "checkpoint": Campaign(runs.checkpoint_cases, runs.prepare_run, 200),
    "export": Campaign(runs.export_cases, runs.prepare_export, 200),
    "results": Campaign(runs.result_cases, _nothing, 300),
}


def run(name: str, cases: int, seed: int, seconds: float) -> tuple[dict[str, int], list[str]]:
    """Outcomes by name, and the details of those that must not be; stops early after so many seconds."""
    end = time.monotonic() + seconds
    folder = Path(tempfile.mkdtemp(prefix="unstill-fuzz-"))
    counts, bad = collections.Counter(), []
    try:
        made = CAMPAIGNS[name].prepare(folder)
        for number, read in enumerate(CAMPAIGNS[name].cases(made, random.Random(seed), cases)):
            outcome, detail = alone(read)
            counts[outcome] += 1
            if outcome in FAULTS:
                bad.append(f"case {number} of seed {seed}: {outcome}\n{detail}")
            if time.monotonic() > end:
                break
    finally:
        shutil.rmtree(folder)
    return dict(sorted(counts.items())), bad


def main() -> int:
    """Run campaigns; 1 when a case ended as none may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaigns", help="one, several as NAME or NAME:CASES with commas, or all")
    parser.add_argument("cases", type=int, nargs="?", help="of each; by default the count of a long run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=1e9, help="that one campaign may take")
    parser.add_argument("--out", type=Path, help="JSON file for the outcomes")
    options = parser.parse_args()
    found, failed = {}, False
    for name in CAMPAIGNS if options.campaigns == "all" else options.campaigns.split(","):
        name, _, own = name.partition(":")
        if name not in CAMPAIGNS:
            parser.error(f"no campaign {name}; there are {', '.join(CAMPAIGNS)}")
        cases = int(own) if own else options.cases or CAMPAIGNS[name].full
        counts, bad = run(name, cases, options.seed, options.seconds)
        cases = sum(counts.values())
        found[name] = {"cases": cases, "seed": options.seed, "outcomes": counts, "faults": bad}
        failed |= bool(bad)
        print(f"{name}, {cases} cases, seed {options.seed}: {counts}", *bad, sep="\n", flush=True)
        if options.out is not None:
            options.out.write_text(json.dumps(found, indent=1) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
