"""Remote datasets: fetched once, checked, bounded, and only from where the user pointed."""

import hashlib
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig
from unstill.pipeline.shards.cache import ShardCache, remote_address


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def remote(small_dataset, tmp_path) -> Path:
    """The dataset with a manifest, on the "other machine"."""
    root = shutil.copytree(small_dataset, tmp_path / "remote")
    names = [f"shards/{path.name}" for path in sorted((root / "shards").glob("*.tar"))]
    shards = [{"name": n, "bytes": (root / n).stat().st_size, "sha256": sha256(root / n)} for n in names]
    manifest = {"shards": shards, "index_sha256": sha256(root / "index.safetensors")}
    (root / "dataset.json").write_text(json.dumps(manifest))
    return root


def kept(cache: ShardCache) -> list[str]:
    return sorted(path.name for path in (cache.root / "shards").glob("*.tar"))


def fetch(cache: ShardCache, name: str) -> bytes:
    with open(cache.open(name), "rb") as file:
        return file.read()


@pytest.mark.parametrize("as_path", [False, True])
def test_a_remote_dataset_delivers_the_same_clips(remote, small_dataset, tmp_path, as_path):
    address = f"file://{remote}"
    options = {"clip": ClipConfig(frames=4, size=16), "augment": AugmentConfig(), "batch_size": 5, "device": "cpu"}
    config = LoaderConfig(remote="shards", cache=tmp_path / "cache")
    with (
        ClipLoader(small_dataset, steps=6, **options) as local,
        ClipLoader(Path(address) if as_path else address, steps=6, config=config, **options) as far,
    ):
        for a, b in zip(local, far, strict=True):
            assert torch.equal(a.frames, b.frames) and torch.equal(a.sample, b.sample)


def test_shards_are_fetched_once_and_the_oldest_make_room(remote, tmp_path):
    size = max(path.stat().st_size for path in (remote / "shards").glob("*.tar"))
    cache = ShardCache(f"file://{remote}", tmp_path / "cache", 2 * size)
    first = cache.root / "shards/00000.tar"
    fetch(cache, "shards/00000.tar")
    first.write_bytes(b"marked")  # fetched again, it would be overwritten
    assert fetch(cache, "shards/00000.tar") == b"marked"
    fetch(cache, "shards/00001.tar")
    fetch(cache, "shards/00000.tar")
    first.write_bytes(b"m" * size)
    fetch(cache, "shards/00001.tar")
    fetch(cache, "shards/00002.tar")
    assert "00002.tar" in kept(cache) and len(kept(cache)) <= 2
    assert "00000.tar" not in kept(cache)


def test_a_small_cache_works_while_shards_come_and_go(remote, tmp_path):
    size = max(path.stat().st_size for path in (remote / "shards").glob("*.tar"))
    config = LoaderConfig(remote="shards", cache=tmp_path / "cache", cache_gb=1.5 * size / 1e9, read_threads=3)
    with ClipLoader(
        f"file://{remote}",
        clip=ClipConfig(frames=4, size=16),
        augment=AugmentConfig(),
        batch_size=5,
        steps=8,
        device="cpu",
        config=config,
    ) as loader:
        assert len(list(loader)) == 8
        files = loader._reader._files
        assert len(files) <= 3


@pytest.mark.slow
def test_a_shard_removed_by_others_at_any_moment_is_read_all_the_same(remote, tmp_path):
    cache = ShardCache(f"file://{remote}", tmp_path / "cache", 10**9)
    path, stop = cache.root / "shards/00000.tar", threading.Event()

    def remove() -> None:
        while not stop.is_set():
            path.unlink(missing_ok=True)

    thread = threading.Thread(target=remove)
    thread.start()
    try:
        contents = {fetch(cache, "shards/00000.tar") for _ in range(200)}
    finally:
        stop.set()
        thread.join()
    assert contents == {(remote / "shards/00000.tar").read_bytes()}


def test_threads_that_ask_at_once_get_one_copy(remote, tmp_path):
    cache = ShardCache(f"file://{remote}", tmp_path / "cache", 10**9)
    downloads, download = [], cache._download
    cache._download = lambda name, *rest: (downloads.append(name), download(name, *rest))[1]
    threads = [threading.Thread(target=fetch, args=(cache, "shards/00001.tar")) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert downloads == ["shards/00001.tar"]


@pytest.mark.parametrize("damage", [lambda d: d[:-1], lambda d: d + b"x", lambda d: b"x" + d[1:], lambda d: b""])
def test_a_shard_that_is_not_the_one_of_the_manifest_is_refused(remote, tmp_path, damage):
    shard = remote / "shards" / "00001.tar"
    shard.write_bytes(damage(shard.read_bytes()))
    cache = ShardCache(f"file://{remote}", tmp_path / "cache", 10**9)
    with pytest.raises(InputError, match=r"00001.tar: 3 tries to fetch it failed, .* SHA-256"):
        fetch(cache, "shards/00001.tar")
    assert kept(cache) == []


@pytest.mark.parametrize(
    "text",
    [
        "pipe:cat /etc/passwd",
        "simplecache::s3://bucket/data",
        "s3://bucket\n/data",
        "ssh://host/data",
        "s3:bucket",
        "http:data",
    ],
)
def test_other_addresses_are_refused(text):
    with pytest.raises(InputError, match="not an address"):
        remote_address(text)


def test_addresses():
    assert remote_address("data/train") is None and remote_address(Path("/data/train")) is None
    assert remote_address("s3://bucket/a") == remote_address(Path("s3://bucket/a")) == "s3://bucket/a"


def test_a_manifest_cannot_point_outside_the_cache(remote, tmp_path):
    manifest = json.loads((remote / "dataset.json").read_text())
    manifest["shards"][0]["name"] = "../../evil.tar"
    (remote / "dataset.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="outside the dataset"):
        ShardCache(f"file://{remote}", tmp_path / "cache", 10**9)


def test_a_missing_dataset_and_a_cache_too_small_are_named(remote, tmp_path):
    with pytest.raises(InputError, match=r"dataset.json: cannot be read"):
        ShardCache(f"file://{tmp_path}/nothing", tmp_path / "cache", 10**9)
    with pytest.raises(InputError, match="largest shard"):
        ShardCache(f"file://{remote}", tmp_path / "cache", 1000)
