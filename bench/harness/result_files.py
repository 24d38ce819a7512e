"""Result files, read back: what ``ResultFile`` wrote, checked before anything is drawn from it."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from ...pipeline.errors import InputError
from .row import Row

_TEXTS = ("name", "command", "commit", "date", "device")


@dataclass(frozen=True)
class Result:
    """One file of results; see ``ResultFile``.

    Attributes:
        file: its name, without the folder.
        name, command, commit, date, device: as recorded.
        rows: what was measured.
        notes: sentences for the reader.
        complete: whether the benchmark came to its end.
        summary: what the rows amount to; empty for most.
        machine, versions: as recorded; empty where a file has none.
    """

    file: str
    name: str
    command: str
    commit: str
    date: str
    device: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)
    complete: bool = True
    summary: str = ""
    machine: dict = field(default_factory=dict)
    versions: dict = field(default_factory=dict)

    @property
    def where(self) -> str:
        """The machine in a few words: ``AMD EPYC, 2 cores``, or the GPU's name."""
        if "gpu" in self.machine:
            return str(self.machine["gpu"])
        if "cpu" in self.machine and self.device == "cpu":
            return f"{self.machine['cpu']}, {self.machine.get('cores', '?')} cores"
        return self.device

    @property
    def source(self) -> str:
        """File, command, commit, device and day: the caption of everything that is drawn from it."""
        return f"{self.file} · {self.command} · commit {self.commit} · {self.where} · {self.date[:10]}"


def read_results(folder: Path) -> list[Result]:
    """All result files of a folder: those of one benchmark together, CPU first.

    Raises:
        InputError: there is none, or one of them is not a result file.
    """
    paths = sorted(Path(folder).glob("*.json"))
    if not paths:
        raise InputError(f"{folder}: no result files (*.json) there; run `unstill bench all` first, or give --results")
    return sorted((_read(path) for path in paths), key=lambda r: (r.name, r.device != "cpu", r.device))


def _read(path: Path) -> Result:
    try:
        content = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise _broken(path, f"cannot be read as JSON ({str(error).splitlines()[0]})") from error
    if not isinstance(content, dict):
        raise _broken(path, "holds no object")
    for name in _TEXTS:
        if not isinstance(content.get(name), str) or not content[name]:
            raise _broken(path, f"{name!r} is missing or no text")
    rows, notes = content.get("rows"), content.get("notes", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise _broken(path, "'rows' is not a list of objects")
    try:
        rows = [Row.from_json(row) for row in rows]
    except ValueError as error:
        raise _broken(path, str(error)) from error
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise _broken(path, "'notes' is not a list of texts")
    facts = {name: content.get(name, {}) for name in ("machine", "versions")}
    for name, value in facts.items():
        if not isinstance(value, dict):
            raise _broken(path, f"{name!r} is not an object")
    complete, summary = bool(content.get("complete", True)), str(content.get("summary", ""))
    texts = {name: content[name] for name in _TEXTS}
    return Result(file=path.name, **texts, rows=rows, notes=notes, complete=complete, summary=summary, **facts)


def _broken(path: Path, why: str) -> InputError:
    return InputError(f"{path}: not a result file, {why}; measure it again with `unstill bench NAME`, or remove it")
