"""A program of named stages that does not repeat what is done: the record is ``stages.json`` in its folder.

A stage is known by a digest of its settings and of the stages it builds on. Same digest and finished: skipped. Same
digest but interrupted: its work is called again on what is there, and continues if it can. Another digest: what it made
is removed first.
"""

import hashlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ...pipeline.atomic_files import make_folder, write_atomic
from ...pipeline.errors import InputError

RECORD = "stages.json"


class Stages:
    """The stages of one folder.

    Args:
        folder: where everything goes; created when missing.
        names: all stages in order, for "2 of 6".
        fresh: forget what is done.

    Raises:
        InputError: the folder holds something that is not ours.
    """

    def __init__(self, folder: Path, names: Sequence[str], fresh: bool = False):
        self.folder, self._names = folder, list(names)
        self._path = folder / RECORD
        if folder.is_dir() and any(folder.iterdir()) and not self._path.exists():
            raise InputError(f"{folder}: not empty and not made by this command; choose another folder with --out")
        make_folder(folder)
        try:
            self._record: dict[str, dict] = json.loads(self._path.read_text()) if self._path.exists() else {}
        except ValueError:
            self._record = {}  # a record that cannot be read: everything is done again
        if fresh:
            self._record = {}
        self._save()
        self.seconds: dict[str, float] = {}

    def run(
        self,
        name: str,
        settings: object,
        outputs: Sequence[Path],
        work: Callable[[], object],
        after: Sequence[str] = (),
    ) -> bool:
        """Do a stage, or skip it.

        Args:
            name: one of ``names``.
            settings: JSON values that decide what the stage makes.
            outputs: files and folders that it makes, below the folder; removed before a stage with other settings.
            work: makes them.
            after: stages that it builds on; they must have been run.

        Returns:
            Whether the work was done now.
        """
        builds_on = [self._record[other]["digest"] for other in after]
        text = json.dumps([name, settings, builds_on], sort_keys=True, default=str)
        digest = hashlib.sha256(text.encode()).hexdigest()
        number = f"[{self._names.index(name) + 1}/{len(self._names)}] {name.replace('_', ' ')}"
        known = self._record.get(name)
        if known and known["digest"] == digest and known["done"] and all(path.exists() for path in outputs):
            self.seconds[name] = known["seconds"]
            _say(f"{number}: done before, in {known['seconds']:.1f} s")
            return False
        if not known or known["digest"] != digest:
            for path in outputs:
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        _say(number)
        self._record[name] = {"digest": digest, "done": False, "seconds": 0.0}
        self._save()
        start = time.monotonic()
        work()
        self.seconds[name] = round(time.monotonic() - start, 2)
        self._record[name] = {"digest": digest, "done": True, "seconds": self.seconds[name]}
        self._save()
        return True

    def _save(self) -> None:
        write_atomic(self._path, json.dumps(self._record, indent=1).encode())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
