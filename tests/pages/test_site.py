"""The site of docs/ as `make docs` builds it, in a real browser: nothing fails to load, fits a telephone, can be read.

Skipped where mkdocs or Chromium is not installed.
"""

import subprocess
import sys
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

ROOT = Path(__file__).parents[2]
CHECKS = Path(__file__).with_name("checks.js").read_text()
NARROW = 400


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_every_page_of_the_site_loads_fits_and_can_be_read(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"]
    subprocess.run(command, cwd=ROOT, check=True)
    pages = [path for path in sorted((tmp_path / "site").rglob("index.html")) if "repository" not in path.parts]
    assert len(pages) > 20
    faults = {}
    for dark in (False, True):
        with Browser() as browser:  # a new one: the site stores the scheme that it began with
            for path in pages:
                page = browser.open(path, width=NARROW, dark=dark)
                page.evaluate(CHECKS)
                scheme = page.evaluate("document.body.getAttribute('data-md-color-scheme')")
                found = [
                    *page.complaints(),
                    *(url for url in page.requests() if not url.startswith("file:")),
                    *page.evaluate("sticksOut()"),
                    *page.evaluate("unreadable(document.querySelector('.md-content'))"),
                    *([] if page.evaluate("document.documentElement.scrollWidth") <= NARROW else ["too wide"]),
                    *([] if scheme == ("slate" if dark else "default") else [f"scheme {scheme}"]),
                ]
                if found:
                    faults[f"{path.parent.name}, {'dark' if dark else 'light'}"] = found
    assert faults == {}
