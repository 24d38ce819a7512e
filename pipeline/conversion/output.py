"""Where a dataset is written: a local folder, or an address (s3://, gs://, ...) that fsspec writes.

A remote output is staged in a temporary folder, one shard at a time: index and tar go up first, the manifest that makes
the shard count last, and ``dataset.json`` after everything else.
"""

import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from ..atomic_files import make_folder, sweep_partials
from ..errors import InputError
from ..shards.cache import remote_address
from ..shards.writer import dali_index_name, manifest_name, read_manifest, shard_done, shard_name
from .plan import PLAN_NAME

SHARD_FOLDER = "shards"
DATASET_NAME = "dataset.json"


class LocalOutput:
    """A local folder; everything is written in place."""

    def __init__(self, root: Path):
        self.root, self.name = root, str(root)
        self.shards = root / SHARD_FOLDER
        make_folder(root)
        make_folder(self.shards)
        sweep_partials(root)
        sweep_partials(self.shards)

    def done(self, shard: int, plan_id: str) -> bool:
        """Whether the shard is finished, by this run or another."""
        return shard_done(self.shards, shard, plan_id)

    def shard_bytes(self, name: str) -> int | None:
        """Length of a shard by its name in ``dataset.json``; None when it is not there."""
        try:
            return (self.root / name).stat().st_size
        except FileNotFoundError:
            return None

    def open_shard(self, name: str) -> BinaryIO:
        """Open a finished shard for reading."""
        return open(self.root / name, "rb")

    def published(self, shard: int) -> None:
        """Called when a shard has its files in ``shards``."""

    def written(self, name: str) -> None:
        """Called when a file of the dataset has been written into ``root``."""

    def gather(self) -> None:
        """Called before the merge: manifests that other runs made must lie in ``shards`` now."""

    def close(self) -> None:
        """Leave; half-written files of a worker that died are removed."""
        sweep_partials(self.root)
        sweep_partials(self.shards)

    def __enter__(self):
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RemoteOutput(LocalOutput):
    """A folder behind an address.

    Raises (all methods):
        InputError: the address cannot be read or written.
    """

    def __init__(self, address: str, resume: bool = True):
        import fsspec  # comes with torch; imported here because only remote outputs need it

        try:
            self._files, self._path = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError) as error:
            raise InputError(f"{address}: cannot be opened ({error})") from error
        self._staging = tempfile.mkdtemp(prefix="unstill_")
        super().__init__(Path(self._staging))
        self.name = address
        self._sizes: dict[str, int] = {}
        if resume:
            self._pull(PLAN_NAME)
            self._pull(DATASET_NAME)
            self.gather()

    def done(self, shard: int, plan_id: str) -> bool:
        manifest = read_manifest(self.shards, shard)
        if manifest is None or manifest["plan"] != plan_id:
            return False
        return manifest["shard"] is None or self._sizes.get(manifest["shard"]) == manifest["bytes"]

    def shard_bytes(self, name: str) -> int | None:
        return self._sizes.get(name.removeprefix(f"{SHARD_FOLDER}/"))

    def open_shard(self, name: str) -> BinaryIO:
        return self._files.open(f"{self._path}/{name}", "rb")

    def published(self, shard: int) -> None:
        for name in (dali_index_name(shard), shard_name(shard), manifest_name(shard)):
            if (self.shards / name).exists():
                self._sizes[name] = (self.shards / name).stat().st_size
                self.written(f"{SHARD_FOLDER}/{name}")
        for name in (dali_index_name(shard), shard_name(shard)):
            (self.shards / name).unlink(missing_ok=True)

    def written(self, name: str) -> None:
        try:
            self._files.makedirs(f"{self._path}/{name}".rpartition("/")[0], exist_ok=True)
            self._files.put_file(str(self.root / name), f"{self._path}/{name}")
        except OSError as error:
            raise InputError(f"{self.name}/{name}: cannot be written ({error}); run the same command again") from error

    def gather(self) -> None:
        folder = f"{self._path}/{SHARD_FOLDER}"
        try:
            self._files.invalidate_cache()
            found = self._files.ls(folder, detail=True) if self._files.exists(folder) else []
        except OSError as error:
            raise InputError(f"{self.name}: cannot be listed ({error})") from error
        self._sizes = {entry["name"].rstrip("/").rpartition("/")[2]: entry["size"] or 0 for entry in found}
        wanted = [
            name
            for name in self._sizes
            if name.removesuffix(".json").isdigit() and name.endswith(".json") and not (self.shards / name).exists()
        ]
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(lambda name: self._pull(f"{SHARD_FOLDER}/{name}"), wanted))

    def close(self) -> None:
        shutil.rmtree(self._staging, ignore_errors=True)

    def _pull(self, name: str) -> None:
        try:
            (self.root / name).write_bytes(self._files.cat_file(f"{self._path}/{name}"))
        except FileNotFoundError:
            return
        except OSError as error:
            raise InputError(f"{self.name}/{name}: cannot be read ({error})") from error


def open_output(out: str | Path, resume: bool = True) -> LocalOutput:
    """The output at ``out``.

    Args:
        resume: look for what is there already; without it (one task of a larger job) a remote output starts blank.

    Raises:
        InputError: it cannot be created or read.
    """
    address = remote_address(out)
    return LocalOutput(Path(out)) if address is None else RemoteOutput(address, resume)
