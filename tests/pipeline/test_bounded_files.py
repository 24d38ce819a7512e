"""Small untrusted files are read up to a bound, which costs no memory itself."""

import pytest

from unstill.pipeline.bounded_files import read_bounded
from unstill.pipeline.errors import InputError


def test_a_large_bound_costs_no_memory_and_a_small_one_is_kept(tmp_path):
    path = tmp_path / "small"
    path.write_bytes(b"abc")
    assert read_bounded(path, 1 << 60) == b"abc" and read_bounded(path, 3) == b"abc"
    with pytest.raises(InputError, match="3 bytes, at most 2 are read"):
        read_bounded(path, 2)
