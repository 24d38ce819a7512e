"""Files with random faults, each read in a process of its own. A case must end in one line, a bad clip or right data.

    python tests/fuzz/campaign.py index 800 --seed 7

Campaigns: ``index`` (the index of a dataset whose manifest names the right one), ``columns`` (one column of an index
that nothing else vouches for, as in an untrusted dataset: labels and keys may then be anything), ``mp4`` (bytes of
videos, all checksums recomputed), ``checkpoint`` (weights, config and manifest, its hashes recomputed), ``export``
(config.json and weights), ``masks`` (boxes as pickle, CSV and JSON, run lengths, .mat). What must not be: ``signal``,
``hang``, ``traceback``, ``memory``, ``wrong data``.
"""

import argparse
import collections
import dataclasses
import hashlib
import json
import os
import pickle
import random
import resource
import select
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import ClipConfig, ViewConfig
from unstill.pipeline.ood.masks import open_masks
from unstill.pipeline.shards.index import INDEX_NAME, SampleIndex

torch.set_num_threads(1)  # cases are forked, and a pool of threads does not survive that

FAULTS = ("signal", "hang", "traceback", "memory", "wrong data")
SECONDS, MEMORY = 40, 16 << 30
Case = tuple[str, Callable[[], str]]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to sixteen faults."""
    found = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 4, 16])):
        at, kind = rng.randrange(len(found)), rng.choice(["flip", "flip", "byte", "number", "zeros", "cut", "swap"])
        if kind == "flip":
            found[at] ^= 1 << rng.randrange(8)
        elif kind == "byte":
            found[at] = rng.randrange(256)
        elif kind == "number":
            number = rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1, 65535, 255, 1 << 24])
            found[at & ~3 : (at & ~3) + 4] = number.to_bytes(4, rng.choice(["little", "big"]))
        elif kind == "zeros":
            found[at : at + 8] = bytes(len(found[at : at + 8]))
        elif kind == "swap":
            other = rng.randrange(len(found))
            found[at], found[other] = found[other], found[at]
        elif len(found) > 1 and rng.random() < 0.3:
            del found[max(1, at) :]
    return bytes(found)


def alone(read: Callable[[], str]) -> tuple[str, str]:
    """Run ``read`` in a child; (outcome, detail)."""
    pipe, written = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(pipe)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, 1)
        os.dup2(nothing, 2)
        try:
            found = read(), ""
        except InputError as error:
            found = ("one line" if "\n" not in str(error) else "traceback"), str(error)
        except MemoryError:
            found = "memory", traceback.format_exc()[-800:]
        except BaseException:
            found = "traceback", traceback.format_exc()[-800:]
        os.write(written, json.dumps(found).encode()[:60000])
        os._exit(0)
    os.close(written)
    begin, data = time.monotonic(), b""
    while (left := SECONDS - (time.monotonic() - begin)) > 0 and select.select([pipe], [], [], left)[0]:
        part = os.read(pipe, 65536)
        if not part:
            break
        data += part
    else:
        os.kill(pid, signal.SIGKILL)
        data = b'["hang", ""]'
    os.close(pipe)
    _, status = os.waitpid(pid, 0)
    if not data:
        return "signal", f"status {status}"
    outcome, detail = json.loads(data)
    return outcome, detail


def clips_of(folder: Path) -> dict[str, tuple[str, str]]:
    """Class and digest of the frames of every clip that is delivered, by key."""
    torch.set_num_threads(1)
    found = {}
    config = LoaderConfig(max_bad_fraction=1.0, decode_threads=1)
    clip = ClipConfig(frames=4, stride=2, size=32)
    with ClipLoader(folder, clip=clip, batch_size=4, views=ViewConfig(), device="cpu", config=config) as loader:
        for clips in loader:
            for row, sample in enumerate(clips.sample.tolist()):
                digest = hashlib.sha256(clips.frames[row].numpy().tobytes()).hexdigest()
                found[loader.index.key(sample)] = loader.index.classes[int(clips.label[row])], digest
    return found


def compare(folder: Path, truth: dict, what: Callable[[dict], object]) -> str:
    """The outcome of reading a dataset whose right content is known."""
    found = clips_of(folder)
    if any(what({key: value}) != what({key: truth.get(key)}) for key, value in found.items()):
        return "wrong data"
    return "right data" if len(found) == len(truth) else "bad clips"


def index_cases(folder: Path, rng: random.Random, cases: int):
    """Random bytes of index.safetensors; dataset.json names the right one."""
    truth, data = clips_of_child(folder), (folder / INDEX_NAME).read_bytes()
    (folder / "dataset.json").write_text(json.dumps({"index_sha256": hashlib.sha256(data).hexdigest()}))
    for _ in range(cases):
        (folder / INDEX_NAME).write_bytes(mutated(data, rng))
        yield lambda: compare(folder, truth, dict)


def column_cases(folder: Path, rng: random.Random, cases: int):
    """One value, or all, of a column of the index."""
    truth, index = clips_of_child(folder), SampleIndex.load(folder)
    columns = [name for name, value in vars(index).items() if isinstance(value, np.ndarray)]
    copies = {name: np.array(getattr(index, name)) for name in columns}
    index = dataclasses.replace(index, **copies)
    for number in range(cases):
        name = columns[number % len(columns)]
        column = copies[name].copy()
        row, limits = rng.randrange(len(column)), np.iinfo(column.dtype)
        old = int(column[row])
        new = rng.choice(
            [old + 1, old - 1, old + rng.randrange(1, 400), old * 2, old // 2, 0, limits.max, limits.min, 65520]
        )
        column[slice(None) if rng.random() < 0.3 else row] = max(int(limits.min), min(int(limits.max), new))
        dataclasses.replace(index, **{name: column}).save(folder / INDEX_NAME)
        # what a sample is called, its class, and which of its frames are where, is the index's to say; its size is not
        yield (
            lambda name=name: (
                found
                if (found := compare(folder, truth, dict)) != "wrong data" or name in ("width", "height")
                else "other data"
            )
        )


def mp4_cases(folder: Path, rng: random.Random, cases: int):
    """Bytes of one video, biased to its boxes; all checksums recomputed."""
    import zlib

    index = SampleIndex.load(folder)
    truth = clips_of_child(folder)
    copies = {name: np.array(v) for name, v in vars(index).items() if isinstance(v, np.ndarray)}
    index = dataclasses.replace(index, **copies)  # no longer the mapped file, which is written below
    shard = folder / index.shard_names[0]
    data = shard.read_bytes()
    rows = np.flatnonzero(copies["shard"] == 0)
    for _ in range(cases):
        changed = bytearray(data)
        columns = {name: copies[name].copy() for name in ("init_crc", "fragment_crc")}
        for row in rows.tolist():
            begin, size, init = (int(copies[name][row]) for name in ("mp4_offset", "mp4_bytes", "init_bytes"))
            first, last = copies["fragment_row"][row : row + 2].tolist()
            ends = [init, *copies["fragment_end"][first:last].tolist()]
            place = rng.choice([(0, init), *((end, min(end + 120, size)) for end in ends[:-1]), (0, size)])
            part = mutated(bytes(changed[begin + place[0] : begin + place[1]]), rng)
            part = part.ljust(place[1] - place[0], b"\0")[: place[1] - place[0]]
            changed[begin + place[0] : begin + place[1]] = part
            columns["init_crc"][row] = zlib.crc32(changed[begin : begin + init])
            for k in range(last - first):
                columns["fragment_crc"][first + k] = zlib.crc32(changed[begin + ends[k] : begin + ends[k + 1]])
        shard.write_bytes(changed)
        dataclasses.replace(index, **columns).save(folder / INDEX_NAME)
        # other pixels are what an untrusted video may hold: only that it ends well counts
        yield lambda: "bad clips" if compare(folder, truth, lambda one: 0) == "bad clips" else "right data"


def clips_of_child(folder: Path) -> dict[str, tuple[str, str]]:
    """``clips_of`` in a child: DALI must not have run in the process that forks."""
    outcome, text = alone(lambda: json.dumps(clips_of(folder)))
    if outcome in FAULTS or outcome == "one line":
        raise RuntimeError(f"{outcome}: {text}")
    return {key: tuple(value) for key, value in json.loads(outcome).items()}


def checkpoint_cases(folder: Path, rng: random.Random, cases: int):
    """One file of a checkpoint; the manifest's hash follows except in one case of three."""
    from unstill.trainer.checkpoints.checkpoint import load_model

    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    for _ in range(cases):
        name = rng.choice(["model.safetensors", "config.json", "config.json", "manifest.json"])
        changed = mutated_json(whole[name], rng) if name.endswith("json") else mutated(whole[name], rng)
        for each, data in whole.items():
            (folder / each).write_bytes(data)
        (folder / name).write_bytes(changed)
        if name != "manifest.json" and rng.random() < 0.7:
            manifest = json.loads(whole["manifest.json"])
            manifest["files"][name] = {"bytes": len(changed), "sha256": hashlib.sha256(changed).hexdigest()}
            (folder / "manifest.json").write_text(json.dumps(manifest))
        yield lambda: "loaded" if load_model(folder) else ""


def export_cases(folder: Path, rng: random.Random, cases: int):
    """config.json or the weights of an exported folder."""
    from unstill.trainer.inference.classifier import load_classifier

    whole = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    for _ in range(cases):
        for each, data in whole.items():
            (folder / each).write_bytes(data)
        name = rng.choice(["config.json", "config.json", "model.safetensors"])
        changed = mutated_json(whole[name], rng) if name.endswith("json") else mutated(whole[name], rng)
        (folder / name).write_bytes(changed)
        yield lambda: "loaded" if load_classifier(folder) else ""


def mutated_json(data: bytes, rng: random.Random) -> bytes:
    """Random bytes, or another value in a random place of the tree."""
    if rng.random() < 0.3:
        return mutated(data, rng)
    tree = json.loads(data)
    root = {"": tree}
    node, place = root, ""
    while isinstance(node[place], dict | list) and node[place] and rng.random() < 0.85:
        node = node[place]
        place = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
    values = [None, 0, -1, 10**9, 10**30, 1.5, float("nan"), "", "x" * 5000, "a:b", [], [1, 2], {}, {"kind": "x"}, True]
    node[place] = rng.choice(values)
    return json.dumps(root[""]).encode()


def mask_cases(folder: Path, rng: random.Random, cases: int):
    """Boxes and masks of one video."""
    tube = {"sf": 0, "ef": 2, "boxes": np.array([[1, 1, 5, 5], [2, 2, 5, 5]], np.uint8)}
    runs = [{"size": [16, 24], "counts": [100, 200, 84]}, {"size": [16, 24], "counts": "T3X6\\2"}, None]
    boxes = "video,frame,left,top,right,bottom\nv,0,1,2,3,4\nv,1,2.5,3,4,5\n"
    whole = {
        "a.pkl": pickle.dumps({"v": {"annotations": [tube]}}, 2),
        "a.csv": boxes.encode(),
        "a.json": json.dumps({"v": {"0": [[1, 2, 3, 4]], "1": [[2, 3, 4, 5]]}}).encode(),
        "v.json": json.dumps(runs).encode(),
    }
    for _ in range(cases):
        name = rng.choice(list(whole))
        (folder / name).write_bytes(mutated(whole[name], rng))

        def read(name=name) -> str:
            path, kind = (folder, "segmentation") if name == "v.json" else (folder / name, "boxes")
            masks = open_masks(path, kind)("v", (3, 16, 24))
            return "nothing" if masks is None else f"{masks.shape[1:] == (16, 24) and masks.dtype == bool}"

        yield read


CAMPAIGNS = {
    "index": index_cases,
    "columns": column_cases,
    "mp4": mp4_cases,
    "checkpoint": checkpoint_cases,
    "export": export_cases,
    "masks": mask_cases,
}


def run(name: str, folder: Path, cases: int, seed: int) -> tuple[collections.Counter, list[str]]:
    """Outcomes by name, and the details of those that must not be. ``folder`` is made by ``prepare`` and is changed."""
    counts, bad = collections.Counter(), []
    for number, read in enumerate(CAMPAIGNS[name](folder, random.Random(seed), cases)):
        outcome, detail = alone(read)
        counts[outcome] += 1
        if outcome in FAULTS:
            bad.append(f"case {number} of seed {seed}: {outcome}\n{detail}")
    return counts, bad


def prepare(name: str, folder: Path) -> Path:
    """What a campaign changes."""
    tests = Path(__file__).resolve().parents[1]
    if name in ("index", "columns", "mp4"):
        sys.path.insert(0, str(tests / "pipeline"))
        from conftest import make_video, write_dataset

        return write_dataset(folder / "data", [make_video(frames=14, seed=n, label=n % 4) for n in range(8)], 8)
    if name == "masks":
        return folder
    sys.path.insert(0, str(tests / "trainer"))
    from synthetic_run import loader_of, make_dataset, run_config

    from unstill.trainer.inference.config import ExportConfig
    from unstill.trainer.inference.export import export
    from unstill.trainer.models.config import ModelConfig
    from unstill.trainer.train import train

    make_dataset(folder / "data")
    config = run_config(folder, model=ModelConfig(name="motion_cnn"), epochs=8 / 24)
    done = train(config, make_loader=loader_of())
    if name == "checkpoint":
        return done.checkpoint
    return export(ExportConfig(run=done.checkpoint, out=folder / "exported", formats=())).folder


def main() -> int:
    """Run one campaign; 1 when a case ended as none may."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("campaign", choices=CAMPAIGNS)
    parser.add_argument("cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="unstill-fuzz-"))
    try:
        counts, bad = run(options.campaign, prepare(options.campaign, folder), options.cases, options.seed)
    finally:
        shutil.rmtree(folder)
    print(f"{options.campaign}, {options.cases} cases, seed {options.seed}: {dict(counts)}", *bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
