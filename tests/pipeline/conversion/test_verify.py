"""`verify` finds every kind of damage, names shard, offset and key, and is not to be led astray by a hostile shard."""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import tarfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unstill.pipeline.conversion.verify import Fault, verify
from unstill.pipeline.errors import InputError


def shard_of(converted: Path) -> dict[str, bytes]:
    """Members of the first shard, in order."""
    with tarfile.open(converted / "shards" / "00000.tar") as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def write_tar(path: Path, members: list[tuple[str, bytes]], **info) -> Path:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            for attribute, value in info.items():
                setattr(member, attribute, value)
            tar.addfile(member, io.BytesIO(data))
    return path


def header(name: str, size: int, flag: bytes = b"0") -> bytes:
    """A ustar header that may claim any size."""
    member = tarfile.TarInfo(name)
    block = bytearray(member.tobuf(format=tarfile.USTAR_FORMAT))
    block[124:136] = b"%011o\0" % size
    block[156:157] = flag
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def problems(path: Path, **options) -> list[Fault]:
    return verify(path, workers=1, **{"decode": False, **options})


def test_a_good_dataset_has_no_fault(converted):
    assert verify(converted, workers=1) == []


def test_nothing_to_verify(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        verify(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no dataset\.json"):
        verify(tmp_path)


@pytest.fixture
def copy(converted, tmp_path) -> Path:
    return Path(shutil.copytree(converted, tmp_path / "copy"))


def test_one_flipped_bit_anywhere_in_a_shard_is_found(copy):
    path = copy / "shards" / "00001.tar"
    data = bytearray(path.read_bytes())
    for position in (5, 130, 700, 3000, len(data) // 2, len(data) - 1):
        data[position] ^= 4
        path.write_bytes(data)
        assert problems(copy), f"bit at byte {position}"
        data[position] ^= 4
    path.write_bytes(data)
    assert problems(copy) == []


def test_damage_names_shard_offset_and_key(copy):
    path = copy / "shards" / "00000.tar"
    with tarfile.open(path) as tar:
        second = tar.getmembers()[4]
    data = bytearray(path.read_bytes())
    data[second.offset_data + second.size - 20] ^= 255
    path.write_bytes(data)
    faults = problems(copy)
    assert any(
        (fault.shard, fault.offset, fault.key) == ("shards/00000.tar", second.offset, second.name[:-4])
        and "CRC" in fault.problem
        for fault in faults
    )


def test_files_around_the_shards(copy):
    shutil.copy(copy / "shards" / "00000.tar", copy / "shards" / "99999.tar")
    (copy / "shards" / "00001.json").unlink()
    index = bytearray((copy / "index.safetensors").read_bytes())
    index[-3] ^= 1
    (copy / "index.safetensors").write_bytes(index)
    text = " / ".join(map(str, problems(copy)))
    assert "99999.tar:0: is not listed" in text and "00001.tar:0: has no manifest" in text
    assert "index.safetensors" in text
    (copy / "shards" / "00002.tar").unlink()
    assert any("No such file" in str(fault) for fault in problems(copy))


def test_decoding_finds_what_checksums_cannot(converted, tmp_path):
    """A sample whose tables are consistent, but whose pictures are destroyed."""
    members = list(shard_of(converted).items())[:4]
    mp4 = bytearray(members[0][1])
    mp4[-60:] = bytes(60)
    about = {**json.loads(members[3][1]), "crc32": zlib.crc32(mp4)}
    members[0], members[3] = (members[0][0], bytes(mp4)), (members[3][0], json.dumps(about).encode())
    path = write_tar(tmp_path / "a.tar", members)
    assert problems(path) == []
    (fault,) = problems(path, decode=True)
    assert fault.key == members[0][0][:-4] and fault.offset == 0


class Bomb:
    """Writes a marker file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (os.mkdir, (str(self.marker),))


def test_hostile_shards_are_named_and_do_nothing(converted, tmp_path):
    good = list(shard_of(converted).items())
    key = good[0][0][:-4]
    marker = tmp_path / "marker"
    sample = b"".join(header(n, len(d)) + d + bytes(-len(d) % 512) for n, d in good[:4])
    end = bytes(1024)
    whole = sample + end

    def replaced(extension: str, data: bytes) -> list[tuple[str, bytes]]:
        return [(n, data if n.endswith(extension) else d) for n, d in good[:4]]

    table = bytearray(good[1][1])
    table[24:28] = struct.pack("<i", 2**31 - 1)
    cases = {
        "empty": (b"", "is empty"),
        "zeros only": (bytes(512), "end marker"),
        "random": (os.urandom(4096), "no tar header"),
        "gzip": (gzip.compress(whole), "gzip"),
        "no end marker": (sample, "without its end marker"),
        "cut in a member": (whole[:700], "left in the file"),
        "data after the end": (whole + sample, "after the archive's end"),
        "claims 1 TiB": (header("a.mp4", 2**33 - 1) + end, "claims 8589934591 bytes"),
        "damaged header": (whole[:100] + b"\x01" + whole[101:], "checksum"),
        "parent path": (header(f"../../../{key}.mp4", 0) + end, "not a sample's name"),
        "absolute path": (header("/etc/passwd.mp4", 0) + end, "not a sample's name"),
        "newline": (header("a\nb.mp4", 0) + end, "not a sample's name"),
        "pipe name": (header("pipe:touch x.mp4", 0) + end, "not a sample's name"),
        "terminal escape": (header("\x1b[2Jx.mp4", 0) + end, "not a sample's name"),
        "symbolic link": (header("a.mp4", 0, b"2") + end, "symbolic link"),
        "hard link": (header("a.mp4", 0, b"1") + end, "hard link"),
        "device": (header("a.mp4", 0, b"3") + end, "device"),
        "folder": (header("a.mp4", 0, b"5") + end, "folder"),
        "long name": (header("a.mp4", 0, b"L") + end, "type"),
        "missing component": (write_tar(tmp_path / "t", good[:3]).read_bytes(), "lacks json"),
        "other order": (write_tar(tmp_path / "t", good[:4][::-1]).read_bytes(), "where 'mp4' was expected"),
        "twice": (sample + sample + end, "the key is also in"),
        "unknown component": (
            write_tar(tmp_path / "t", [*good[:4], (f"{key}.txt", b"x")]).read_bytes(),
            "no component",
        ),
        "pickle": (
            write_tar(tmp_path / "t", [(f"{key}.pyd", pickle.dumps(Bomb(marker))), *good[:4]]).read_bytes(),
            "no component",
        ),
        "huge json": (write_tar(tmp_path / "t", replaced("json", b"[" * (2 << 20))).read_bytes(), "at most"),
        "deep json": (write_tar(tmp_path / "t", replaced("json", b"[" * 500_000)).read_bytes(), "JSON"),
        "NaN json": (write_tar(tmp_path / "t", replaced("json", b'{"a": NaN}')).read_bytes(), "JSON"),
        "pickle for json": (
            write_tar(tmp_path / "t", replaced("json", pickle.dumps(Bomb(marker)))).read_bytes(),
            "JSON",
        ),
        "lying table": (write_tar(tmp_path / "t", replaced("gops", bytes(table))).read_bytes(), "fragment table"),
        "odd table": (write_tar(tmp_path / "t", replaced("gops", b"abc")).read_bytes(), "3 bytes"),
        "empty mp4": (write_tar(tmp_path / "t", replaced("mp4", b"")).read_bytes(), "moof"),
        "other class": (write_tar(tmp_path / "t", replaced("cls", b"77")).read_bytes(), "class"),
    }
    for name, (data, expected) in cases.items():
        path = tmp_path / "hostile.tar"
        path.write_bytes(data)
        faults = problems(path)
        text = " / ".join(map(str, faults))
        assert expected in text, f"{name}: {text!r}"
        assert "hostile.tar:" in text and text.isprintable(), name
    assert not marker.exists()


def test_manifests_that_lead_elsewhere(copy):
    path = copy / "dataset.json"
    dataset = json.loads(path.read_text())
    for name in ("../../etc/passwd", "shards/../../x.tar", "pipe:touch x", "/abs.tar"):
        dataset["shards"][0]["name"] = name
        path.write_text(json.dumps(dataset))
        with pytest.raises(InputError, match="outside shards"):
            verify(copy)
    os.mkfifo(copy / "shards" / "fifo.tar")
    dataset["shards"][0]["name"] = "shards/fifo.tar"
    path.write_text(json.dumps(dataset))
    assert any("not a plain file" in str(fault) for fault in problems(copy))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_mutation_of_a_shard_raises(data, converted, tmp_path):
    """Whatever bytes a shard holds: the answer is a list of faults that name it, and never an exception."""
    shard = bytearray((converted / "shards" / "00002.tar").read_bytes())
    length = len(shard)
    for _ in range(data.draw(st.integers(1, 4))):
        # mostly into headers, tables and JSON, where a byte decides most
        base = data.draw(st.sampled_from([0, 512, length // 3 // 512 * 512, length // 2 // 512 * 512, length - 2048]))
        position = min(base + data.draw(st.integers(0, 600)), len(shard) - 1)
        kind = data.draw(st.sampled_from(["flip", "zero", "digit", "cut", "insert", "swap"]))
        if kind == "cut":
            del shard[position:]
        elif kind == "insert":
            shard[position:position] = data.draw(st.binary(min_size=1, max_size=600))
        elif kind == "swap":
            shard[position : position + 512], shard[:512] = shard[:512], shard[position : position + 512]
        else:
            shard[position] = {"flip": shard[position] ^ 1, "zero": 0, "digit": 0x37}[kind]
        if not shard:
            break
    path = tmp_path / "mutated.tar"
    path.write_bytes(shard)
    faults = verify(path, workers=1, decode=False)
    assert all(fault.shard == "mutated.tar" and str(fault).isprintable() for fault in faults)
