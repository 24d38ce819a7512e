"""An uninterrupted run to compare with, and signals that arrive."""

import signal

import pytest
import torch
from fault_scenarios import digest
from synthetic_run import loader_of, make_dataset, run_config

from unstill.trainer.train import train


@pytest.fixture
def signals_as_on_a_terminal():
    """Ctrl-C and SIGHUP are ignored where the tests run in the background, and what is ignored stays so."""
    before = {
        signal.SIGINT: signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    }
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def folder(tmp_path):
    make_dataset(tmp_path / "data")
    return tmp_path


@pytest.fixture(scope="session")
def whole(tmp_path_factory):
    """Digest of an uninterrupted run, and its final checkpoint's folder."""
    folder = tmp_path_factory.mktemp("whole")
    make_dataset(folder / "data")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    result = train(run_config(folder), make_loader=loader_of())
    torch.set_num_threads(threads)
    return digest(folder / "run"), result
