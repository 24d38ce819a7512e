"""``unstill demo``: its stages, its report, and what the report shows."""
