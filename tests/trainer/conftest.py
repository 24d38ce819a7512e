"""Keeps the threads of the tests of this folder few."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """Tiny networks are faster without a thread pool, and sums are then in one order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
