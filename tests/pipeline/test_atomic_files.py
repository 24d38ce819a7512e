"""A file written by path appears complete or not at all, whatever goes wrong while a library writes it."""

import errno
import os

import pytest

from unstill.pipeline.atomic_files import atomic_path
from unstill.pipeline.errors import InputError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_name_appears_at_the_end(tmp_path):
    path = tmp_path / "index.bin"
    path.write_bytes(b"old")
    with atomic_path(path) as partial:
        partial.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new" and names(tmp_path) == ["index.bin"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "no space left"),
        (PermissionError(errno.EACCES, "no"), "not allowed"),
        (OSError(errno.EIO, "no"), "writing failed"),
    ],
)
def test_a_fault_of_the_file_system_is_one_line_and_leaves_the_old_file_alone(tmp_path, error, said):
    path = tmp_path / "index.bin"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match=said) as told, atomic_path(path) as partial:
        partial.write_bytes(b"half of the n")
        raise error
    assert str(path) in str(told.value)
    assert path.read_bytes() == b"old" and names(tmp_path) == ["index.bin"]


def test_any_other_error_passes_and_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_path(tmp_path / "new") as partial:
        partial.write_bytes(b"half")
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_a_library_that_wrote_nothing_is_no_success(tmp_path):
    with pytest.raises(InputError, match="writing failed"), atomic_path(tmp_path / "new"):
        pass
    assert names(tmp_path) == []
