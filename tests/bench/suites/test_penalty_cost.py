"""Rows on the cost of the gradient penalty, at a small clip."""

import pytest

from unstill.bench.suites import penalty_cost


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(penalty_cost.SHAPES, "swin3d_t", (4, 32))


def test_row_statistics_are_two_floats_a_head_and_query(small):
    tokens, heads, blocks = (2 * 8 * 8, 2 * 4 * 4, 2 * 2 * 2, 2 * 1 * 1), (3, 6, 12, 24), (2, 2, 6, 2)
    expected = sum(8 * n * h * b for n, h, b in zip(tokens, heads, blocks, strict=True))
    assert penalty_cost.row_statistics(penalty_cost.built("swin3d_t", "attention")) == expected


@pytest.mark.slow
def test_real_rows_follow_cross_entropy_and_a_failure_is_a_row(small, monkeypatch):
    monkeypatch.setattr(penalty_cost, "MOST", {"attention": (1e9, None, None), "mlp": (0.0, None, None)})
    floor, met, missed = penalty_cost.real_penalty()
    assert floor.value > 1 and floor.met is None
    assert met.met and met.value == pytest.approx(met.facts["mib"] / floor.value) and missed.met is False
    monkeypatch.setattr(penalty_cost, "measured_peak", lambda *_, **__: 1 / 0)
    failed = list(penalty_cost.real_penalty())
    assert all("ZeroDivisionError" in row.facts["error"] and row.value is None for row in failed)
