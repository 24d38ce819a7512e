"""Runs a test with every decoder that gives the same pixels every time."""

import pytest

from unstill.pipeline.loading import decoders, loader


@pytest.fixture(params=["dali", "grouped", "cores"])
def each_decoder(request, monkeypatch) -> str:
    """The decoder that ``auto`` stands for while the test runs; grouped is DALI as it is used on a GPU."""
    choose, name = loader.choose_decoder, request.param
    if name == "grouped":
        name = "dali"
        monkeypatch.setattr(decoders, "GROUPED_ON", ("cpu", "cuda"))

    def chosen(index, reader, device, root, wanted, *rest):
        return choose(index, reader, device, root, name if wanted == "auto" else wanted, *rest)

    monkeypatch.setattr(loader, "choose_decoder", chosen)
    return request.param
