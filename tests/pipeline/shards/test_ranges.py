"""Remote shards read by ranges, from a real S3 server that is slow, busy, cuts answers short, or has lost a shard."""

import hashlib
import json
import os
import shutil
import threading
import time

import numpy as np
import pytest
import torch

from unstill.pipeline.errors import InputError
from unstill.pipeline.loading.loader import ClipLoader
from unstill.pipeline.loading.loader_config import LoaderConfig
from unstill.pipeline.loading.sampler import AugmentConfig, ClipConfig
from unstill.pipeline.shards import ranges

CLIP = ClipConfig(frames=6, stride=2, size=32)


class Faults:
    """WSGI: the server behind a line with 30 ms of latency, and with what a test breaks on range requests."""

    def __init__(self, app):
        self.app, self.latency, self.broken, self.count, self.ranged = app, 0.03, None, 0, 0
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        time.sleep(self.latency)
        if not environ["PATH_INFO"].endswith(".tar") or "HTTP_RANGE" not in environ:
            return self.app(environ, start_response)
        with self._lock:
            self.count += 1
            turn = self.count
        if self.broken == "busy" and turn % 3:
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Content-Length", "0")])
            return [b""]
        if self.broken == "unsigned" and "X-Amz-Signature" in environ["QUERY_STRING"]:
            start_response("403 Forbidden", [("Content-Type", "application/xml"), ("Content-Length", "0")])
            return [b""]
        body = b"".join(self.app(environ, start_response))
        self.ranged += len(body)
        if self.broken == "short" and turn % 2:
            return [body[: len(body) // 2]]
        if self.broken == "damaged" and turn % 7 == 0:
            return [bytes(byte ^ 255 for byte in body)]
        return [body]


@pytest.fixture(scope="module")
def server():
    moto_server = pytest.importorskip("moto.server")  # 0.7 s to import, only where it is used
    pytest.importorskip("s3fs")
    from werkzeug.serving import make_server

    faults = Faults(moto_server.DomainDispatcherApplication(moto_server.create_backend_app))
    http = make_server("127.0.0.1", 0, faults, threaded=True)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    faults.address = f"http://127.0.0.1:{http.server_port}"
    yield faults
    http.shutdown()


@pytest.fixture
def bucket(server, small_dataset, tmp_path, monkeypatch):
    """The address of ``small_dataset`` on the server, and its file system."""
    import s3fs

    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": server.address,
    }.items():
        monkeypatch.setenv(name, value)
    root = shutil.copytree(small_dataset, tmp_path / "remote")
    sha = lambda path: hashlib.sha256(path.read_bytes()).hexdigest()  # noqa: E731
    names = [f"shards/{path.name}" for path in sorted((root / "shards").glob("*.tar"))]
    shards = [{"name": n, "bytes": (root / n).stat().st_size, "sha256": sha(root / n)} for n in names]
    manifest = {"shards": shards, "index_sha256": sha(root / "index.safetensors")}
    (root / "dataset.json").write_text(json.dumps(manifest))
    s3fs.S3FileSystem.clear_instance_cache()
    files = s3fs.S3FileSystem()
    name = f"data{os.urandom(4).hex()}"
    files.mkdir(name)
    files.put(f"{root}/", f"{name}/train/", recursive=True)
    server.broken, server.count, server.ranged = None, 0, 0
    return f"s3://{name}/train", files


def clips_of(dataset, cache=None, **options):
    config = LoaderConfig(**({"cache": cache} if cache else {}))
    options = {"batch_size": 5, "steps": 8, "device": "cpu", "augment": AugmentConfig()} | options
    with ClipLoader(dataset, clip=CLIP, config=config, **options) as loader:
        return list(loader), loader


def assert_equal(a, b):
    for x, y in zip(a, b, strict=True):
        assert torch.equal(x.frames, y.frames) and torch.equal(x.sample, y.sample)


@pytest.mark.slow
@pytest.mark.parametrize("broken", [None, "busy", "short", "damaged", "unsigned"])
def test_no_clip_is_lost_and_none_is_wrong(server, bucket, small_dataset, tmp_path, broken, monkeypatch):
    monkeypatch.setattr(ranges, "_FIRST_PAUSE", 0.01)
    server.broken = broken
    steps = 3 if broken == "busy" else 8  # two of three requests are sent again after a pause of seconds
    clips, loader = clips_of(bucket[0], tmp_path / "cache", steps=steps)
    assert_equal(clips, clips_of(small_dataset, steps=steps)[0])
    assert loader.bad.clips == 0 and server.count > 0
    before, server.broken = server.count, None
    assert_equal(clips_of(bucket[0], tmp_path / "cache", steps=steps)[0], clips)
    assert server.count == before  # everything was kept


def test_a_cold_cache_fetches_little_more_than_is_needed(server, bucket, tmp_path):
    _, loader = clips_of(bucket[0], tmp_path / "cache", steps=2)
    assert 0 < server.ranged <= 1.2 * loader.stats.bytes_read + 2 * ranges.BLOCK * loader.stats.clips


def test_a_clip_takes_one_request(server, bucket, tmp_path):
    clips, _ = clips_of(bucket[0], tmp_path / "cache", steps=6)
    assert 0 < server.count <= sum(map(len, clips)) + 3 * 5  # and the headers of what was on its way at the start


def test_a_shard_that_vanishes_ends_the_run_with_its_name(server, bucket, tmp_path):
    with pytest.raises(InputError, match=r"00001.tar: the shard is no longer there"):
        with ClipLoader(
            bucket[0],
            clip=CLIP,
            augment=AugmentConfig(),
            batch_size=5,
            device="cpu",
            config=LoaderConfig(cache=tmp_path / "cache"),
        ) as loader:
            bucket[1].rm(f"{bucket[0]}/shards/00001.tar")
            for _ in range(60):
                next(loader)


def test_the_cache_stays_below_its_bound(bucket, small_dataset, tmp_path):
    from unstill.pipeline.shards.cache import ShardCache

    cache = ShardCache(bucket[0], tmp_path / "cache", 10**9)
    kept = cache.ranges()
    sizes = cache.sizes()
    kept._max_bytes = max(sizes.values()) + ranges.BLOCK
    for name in [*sizes, *sizes]:
        buffer = np.empty(sizes[name], np.uint8)
        assert kept.read(name, buffer.data, 0) == sizes[name]
        assert buffer.tobytes() == (small_dataset / name).read_bytes()
        on_disk = sum(p.stat().st_blocks * 512 for p in (tmp_path / "cache").rglob("*.tar"))
        assert on_disk <= kept._max_bytes + ranges.BLOCK
