"""The memory benchmark's rows on the gradient penalty, at a small clip."""

import pytest

from unstill.bench.suites import memory


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(memory.SHAPES, "swin3d_t", (4, 32))


def test_row_statistics_are_two_floats_a_head_and_query(small):
    tokens, heads, blocks = (2 * 8 * 8, 2 * 4 * 4, 2 * 2 * 2, 2 * 1 * 1), (3, 6, 12, 24), (2, 2, 6, 2)
    expected = sum(8 * n * h * b for n, h, b in zip(tokens, heads, blocks, strict=True))
    assert memory.row_statistics(memory.built("swin3d_t", "attention")) == expected


@pytest.mark.slow
def test_real_rows_follow_cross_entropy_and_a_failure_is_a_row(small, monkeypatch):
    monkeypatch.setattr(memory, "MOST", {"attention": (1e9, None, None), "mlp": (0.0, None, None)})
    floor, met, missed = memory.real_penalty()
    assert floor.value > 1 and floor.met is None
    assert met.met and met.value == pytest.approx(met.facts["mib"] / floor.value) and missed.met is False
    monkeypatch.setattr(memory, "measured_peak", lambda *_, **__: 1 / 0)
    failed = list(memory.real_penalty())
    assert all("ZeroDivisionError" in row.facts["error"] and row.value is None for row in failed)
