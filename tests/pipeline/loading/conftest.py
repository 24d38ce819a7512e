"""Runs a test with every decoder that gives the same pixels every time."""

import pytest

from unstill.pipeline.loading import loader


@pytest.fixture(params=["dali", "cores"])
def each_decoder(request, monkeypatch) -> str:
    """The decoder that ``auto`` stands for while the test runs."""
    choose = loader.choose_decoder

    def chosen(index, reader, device, root, wanted, *rest):
        return choose(index, reader, device, root, request.param if wanted == "auto" else wanted, *rest)

    monkeypatch.setattr(loader, "choose_decoder", chosen)
    return request.param
