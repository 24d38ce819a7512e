"""What the demonstration's models read: means over seeds."""

from unstill.bench.suites.witnesses import rows


def test_rows_are_means_with_the_extreme_seeds():
    found = {("known", "class", "albar"): [70.0, 80.0], ("", "class", "baseline"): [60.0]}
    albar, baseline = rows(found, dict.fromkeys(found, "percent"))
    assert (albar.value, albar.p20, albar.p80, albar.role, albar.label) == (75, 70, 80, "ours", "ALBAR")
    assert (baseline.value, baseline.p20, baseline.role) == (60, None, "peer")
