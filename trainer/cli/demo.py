"""``unstill demo``."""

from ..demo.run import demo
from ..demo.settings import DemoConfig


def run(options: DemoConfig) -> int:
    """``unstill demo``."""
    demo(options)
    return 0
