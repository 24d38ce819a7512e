"""Runs: checkpoints, exported folders, saved logits and the lists beside them."""

import hashlib
import json
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from mutations import mutated, mutated_json

from unstill.trainer.checkpoints.checkpoint import load_model
from unstill.trainer.evaluation.files import read_facts, read_logits
from unstill.trainer.evaluation.predictions import Predictions
from unstill.trainer.evaluation.truth import labels_from_csv
from unstill.trainer.inference.classifier import load_classifier

Cases = Iterator[Callable[[], str]]


def checkpoint_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """One file of a checkpoint; the manifest's hash follows but for one case in three."""
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


def export_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """config.json or the weights of an exported folder."""
    whole = {name: (folder / name).read_bytes() for name in ("config.json", "model.safetensors")}
    for _ in range(cases):
        for each, data in whole.items():
            (folder / each).write_bytes(data)
        name = rng.choice(["config.json", "config.json", "model.safetensors"])
        changed = mutated_json(whole[name], rng) if name.endswith("json") else mutated(whole[name], rng)
        (folder / name).write_bytes(changed)
        yield lambda: "loaded" if load_classifier(folder) else ""


def result_cases(folder: Path, rng: random.Random, cases: int) -> Cases:
    """Saved logits (.npz and .csv), their facts and the truth about videos."""
    keys = tuple(f"v{n}" for n in range(6))
    saved = Predictions(keys, np.arange(6) % 3, np.random.default_rng(0).normal(size=(6, 3)), ("a", "b", "c"))
    saved.save(folder / "m.iid.npz")
    rows = [f"{key},{n % 3},{n}.5,-1e3,0" for n, key in enumerate(keys)]
    whole = {
        "m.iid.npz": (folder / "m.iid.npz").read_bytes(),
        "m.scuba.csv": "\n".join(["key,label,a,b,c", *rows]).encode(),
        "facts.json": json.dumps({"views": "4 x 3", "short videos": "loop"}).encode(),
        "truth.csv": "\n".join(["key,static_class,x", *(f"{key},a,1" for key in keys)]).encode(),
    }
    logits = folder / "logits"
    logits.mkdir()
    for _ in range(cases):
        name = rng.choice(list(whole))
        for each, data in whole.items():
            (logits / each).write_bytes(data) if each != "truth.csv" else (folder / each).write_bytes(data)
        place = folder if name == "truth.csv" else logits
        changed = mutated_json(whole[name], rng) if name.endswith("json") else mutated(whole[name], rng)
        (place / name).write_bytes(changed)

        def read(name=name) -> str:
            if name == "truth.csv":
                return f"{len(labels_from_csv(folder / name, 'static_class', ('a', 'b'))) > 0}"
            read_facts(logits)
            return f"{len(read_logits(logits))} models"

        yield read


def prepare_run(folder: Path) -> Path:
    """A checkpoint of a tiny network."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "trainer"))
    from synthetic_run import loader_of, make_dataset, run_config

    from unstill.trainer.models.config import ModelConfig
    from unstill.trainer.train import train

    make_dataset(folder / "data")
    config = run_config(folder, model=ModelConfig(name="motion_cnn"), epochs=8 / 24)
    return train(config, make_loader=loader_of()).checkpoint


def prepare_export(folder: Path) -> Path:
    """The same network, exported."""
    from unstill.trainer.inference.config import ExportConfig
    from unstill.trainer.inference.export import export

    return export(ExportConfig(run=prepare_run(folder), out=folder / "exported", formats=())).folder
