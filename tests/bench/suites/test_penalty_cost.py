"""Rows on the cost of the gradient penalty, at a small clip."""

import pytest

from unstill.bench.suites import penalty_cost


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setitem(penalty_cost.SHAPES, "swin3d_t", (4, 32))


@pytest.mark.slow
def test_real_rows_follow_cross_entropy_and_a_failure_is_a_row(small, monkeypatch):
    monkeypatch.setattr(penalty_cost, "MOST", {"attention": (1e9, None, None), "mlp": (0.0, None, None)})
    floor, met, missed = penalty_cost.real_penalty()
    assert floor.value > 1 and floor.met is None
    assert met.met and met.value == pytest.approx(met.facts["mib"] / floor.value) and missed.met is False
    monkeypatch.setattr(penalty_cost, "measured_peak", lambda *_, **__: 1 / 0)
    failed = list(penalty_cost.real_penalty())
    assert all("ZeroDivisionError" in row.facts["error"] and row.value is None for row in failed)
