"""Sources and outputs behind an address: the same datasets as from and to a local folder."""

import fsspec
import pytest

from unstill.pipeline.conversion.convert import convert
from unstill.pipeline.conversion.verify import verify
from unstill.pipeline.errors import InputError


@pytest.fixture
def store():
    """fsspec's store in memory, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    files.pseudo_dirs[:] = [""]
    yield files
    files.store.clear()


def shards_of(files, address: str) -> dict[str, bytes]:
    root = address.removeprefix("memory:/")
    return {name.removeprefix(root): files.cat_file(name) for name in files.find(root)}


def local(out) -> dict[str, bytes]:
    return {f"/{path.relative_to(out)}": path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_remote_output_holds_the_same_files(class_folders, convert_config, converted, store):
    address = "memory://bucket/data"
    assert not convert(convert_config(class_folders, address, shards="1:2")).complete
    assert "/dataset.json" not in shards_of(store, address)
    report = convert(convert_config(class_folders, address))
    assert report.complete and report.out == address
    assert shards_of(store, address) == local(converted)
    before = dict(store.store)
    assert convert(convert_config(class_folders, address)).converted == 7  # nothing left to do
    assert dict(store.store) == before


def test_a_remote_shard_of_the_wrong_length_is_made_again(class_folders, convert_config, converted, store):
    address = "memory://bucket/data"
    convert(convert_config(class_folders, address))
    store.pipe_file("/bucket/data/shards/00001.tar", b"cut")
    store.rm_file("/bucket/data/dataset.json")
    convert(convert_config(class_folders, address))
    assert shards_of(store, address) == local(converted)


def test_remote_source(class_folders, convert_config, converted, store, tmp_path):
    for path in class_folders.rglob("*"):
        if path.is_file():
            store.pipe_file(f"/bucket/videos/{path.relative_to(class_folders)}", path.read_bytes())
    report = convert(convert_config("memory://bucket/videos", tmp_path / "out"))
    assert (report.planned, report.converted, report.reasons) == (8, 7, {"unreadable": 1})
    for name in ("00000.tar", "00001.tar", "00002.tar"):
        assert (tmp_path / "out" / "shards" / name).read_bytes() == (converted / "shards" / name).read_bytes()
    assert verify(tmp_path / "out", decode=False) == []


def test_remote_sources_that_vanish_or_change_after_the_plan(convert_config, store, tmp_path, video):
    for number in range(3):
        store.pipe_file(f"/bucket/videos/c/{number}.mp4", video(frames=4, seed=number).mp4)
    config = convert_config("memory://bucket/videos", tmp_path / "out")
    convert(convert_config("memory://bucket/videos", tmp_path / "out", shards="0:0"))
    store.rm_file("/bucket/videos/c/0.mp4")
    store.pipe_file("/bucket/videos/c/1.mp4", video(frames=9, seed=1).mp4)
    assert convert(config).reasons == {"changed": 1, "missing": 1}


@pytest.mark.parametrize(
    "address", ["pipe:touch marker", "memory://a::file:///etc", "nosuch://bucket/x", "file:/etc\n", "http:touch marker"]
)
def test_addresses_that_are_refused(address, convert_config, class_folders, tmp_path, monkeypatch):
    monkeypatch.setattr("subprocess.Popen", None)
    with pytest.raises(InputError):
        convert(convert_config(address, tmp_path / "out"))
    with pytest.raises(InputError):
        convert(convert_config(class_folders, address))


def test_empty_remote_source(convert_config, store, tmp_path):
    with pytest.raises(InputError, match="no files there"):
        convert(convert_config("memory://bucket/nothing", tmp_path / "out"))
