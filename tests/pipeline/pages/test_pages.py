"""All pages of the project share one base and one set of colours, and stand alone."""

import re
from pathlib import Path

import jinja2
import pytest

import unstill.pipeline.pages
from unstill.pipeline.pages import template, with_contents

ROOT = Path(__file__).parents[3]
SHARED = Path(unstill.pipeline.pages.__file__).resolve().parent
PAGES = [path for root in ("bench", "pipeline", "trainer") for path in (ROOT / root).rglob("*.html.j2")]
PAGES = [path for path in PAGES if path.resolve().parent != SHARED]


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_every_page_extends_the_base_and_takes_its_colours(path):
    text = path.read_text()
    assert text.startswith('{% extends "base.html.j2" %}')
    known = set(re.findall(r"(--[a-z]+):", (SHARED / "style.css").read_text()))
    redefined = known & set(re.findall(r"(--[a-z]+):", text))
    assert not redefined, "a colour of style.css has another value on this page"
    used = set(re.findall(r"var\((--[a-z0-9]+)\)", text))
    assert used <= known | set(re.findall(r"(--[a-z0-9]+):", text))


def test_values_are_escaped_and_a_missing_one_is_an_error(tmp_path):
    page = tmp_path / "page.html.j2"
    page.write_text(
        '{% extends "base.html.j2" %}{% block title %}{{ name }}{% endblock %}{% block about %}{% endblock %}'
        "{% block page %}{{ name }}{% endblock %}"
    )
    text = template(page).render(name="<script>")
    assert text.count("&lt;script&gt;") == 2 and "<script>" not in text
    assert "prefers-color-scheme: dark" in text and "http" not in text and "url(" not in text
    with pytest.raises(jinja2.UndefinedError):
        template(page).render()


def test_a_page_of_many_sections_gets_a_list_of_them():
    few = "<h1>x</h1>" + "<h2>Same &amp; same</h2>" * 4
    assert with_contents(few) == few
    page = with_contents(few + '<h2 id="own">With <small>a note</small></h2><p>end</p>')
    anchors, targets = re.findall(r'href="#([^"]+)"', page), re.findall(r'<h2 id="([^"]+)">', page)
    assert anchors == targets and len(set(anchors)) == 5 and anchors[-1] == "own"
    assert page.index("<nav") < page.index("<h2") and ">With a note</a>" in page and "&amp;amp;" not in page
