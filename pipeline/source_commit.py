"""Which commit of unstill is running, for whatever states its results."""

import subprocess
from pathlib import Path


def commit() -> str:
    """The checkout's commit, with ``+`` when tracked files differ (results do not count); ``unknown`` without."""
    root = Path(__file__).parent
    run = lambda *args: subprocess.run(["git", *args], cwd=root, capture_output=True, text=True, check=False)  # noqa: E731
    try:
        top = run("rev-parse", "--show-toplevel").stdout.strip()
        head = run("rev-parse", "--short=12", "HEAD")
    except OSError:  # no git here
        return "unknown"
    # an installed package may lie in an environment within a repository of somebody else
    if head.returncode != 0 or Path(top).resolve() != root.resolve().parent:
        return "unknown"
    code = (":/", ":(top,exclude)bench/results")
    dirty = run("status", "--porcelain", "--untracked-files=no", "--", *code).stdout.strip()
    return head.stdout.strip() + ("+" if dirty else "")
