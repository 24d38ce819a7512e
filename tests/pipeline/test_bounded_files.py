"""Small untrusted files are read up to a bound, which costs no memory itself."""

import os
from pathlib import Path

import pytest

from unstill.pipeline.bounded_files import check_plain, read_bounded
from unstill.pipeline.errors import InputError


def test_a_large_bound_costs_no_memory_and_a_small_one_is_kept(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"abc")
    assert read_bounded(path, 1 << 60) == b"abc" and read_bounded(path, 3) == b"abc"
    with pytest.raises(InputError, match="3 bytes, at most 2 are read"):
        read_bounded(path, 2)


def test_a_library_is_given_plain_files_only(tmp_path):
    (tmp_path / "plain").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    assert check_plain(tmp_path / "plain") == tmp_path / "plain"
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="not a plain file"):
            check_plain(path)
    with pytest.raises(FileNotFoundError):
        check_plain(tmp_path / "nothing")
