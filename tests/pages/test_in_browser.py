"""Every kind of page in a real browser: nothing fails to load, nothing runs out at the side, everything can be read.

Skipped where no Chromium is installed. Widths are those of a telephone, a tablet and a large screen.
"""

from pathlib import Path

import pytest
from browser import CHROMIUM, Browser
from specimens import KINDS, write_page

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
WIDTHS = (400, 900, 1600)

CHECKS = Path(__file__).with_name("checks.js").read_text()


@pytest.fixture(scope="module")
def browser():
    with Browser() as found:
        yield found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_page_loads_fits_and_can_be_read(kind, browser, tmp_path):
    path = write_page(kind, tmp_path)
    for dark in (False, True):
        for width in WIDTHS:
            page = browser.open(path, width=width, dark=dark)
            page.evaluate(CHECKS)
            where = f"{kind}, {width} px, {'dark' if dark else 'light'}"
            assert page.complaints() == [] and page.requests() == [], where
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (where, page.evaluate("sticksOut()"))
            assert page.evaluate("sticksOut()") == [], where
            assert page.evaluate("unreadable()") == [], where
            assert page.evaluate("document.querySelector('.eyebrow').textContent.includes('unstill 0')"), where
            assert page.evaluate(
                "document.querySelectorAll('h2').length < 5 || !!document.querySelector('nav.contents')"
            )


def test_the_checks_see_what_they_are_for(browser, tmp_path):
    """A page with each fault, and none that the checks miss."""
    faulty = tmp_path / "faulty.html"
    faulty.write_text(
        "<!doctype html><main><p style='color:#999;background:#fff'>grey on white</p>"
        "<p style='opacity:.4'>faint by opacity</p><p>black on white</p>"
        "<div style='width:900px'>wide</div><div style='overflow-x:auto'><div style='width:900px'>may be</div></div>"
        "<img src='missing.png'><script>throw Error('x')</script></main>"
    )
    page = browser.open(faulty, width=400)
    page.evaluate(CHECKS)
    assert any("ERR_FILE_NOT_FOUND" in text for text in page.complaints())
    assert any("Uncaught" in text for text in page.complaints())
    assert [text[-4:] for text in page.evaluate("sticksOut()")] == ["wide"]
    assert sorted(text.split(": ")[1] for text in page.evaluate("unreadable()")) == [
        "faint by opacity",
        "grey on white",
    ]
