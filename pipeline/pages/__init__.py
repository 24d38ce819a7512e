"""HTML pages: a jinja2 template is next to the code that fills it, and extends the base and the style sheet here.

    {% extends "base.html.j2" %}
    {% block title %}...{% endblock %}
    {% block style %}...{% endblock %}      what only this page has
    {% block about %}...{% endblock %}      one line above everything: what was looked at
    {% block page %}...{% endblock %}

A page is one file: no script, no font, no picture from elsewhere. ``style.css`` has the colours (light and dark), the
text, tables, cards, headline numbers, bars and keys that all pages share, ``parts.html.j2`` the macros. A page of many
sections gets a list of contents.
"""

import re
from pathlib import Path

import jinja2
from markupsafe import Markup

from unstill import __version__

LONG = 5  # sections, from which a page has a list of contents
_HEADING = re.compile(r'<h2(?: id="(?P<id>[^"]*)")?>(?P<text>.*?)</h2>', re.DOTALL)


def template(path: Path) -> jinja2.Template:
    """The template at ``path``: values are escaped, and one that is not given is an error, not an empty place."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["with_contents"] = with_contents
    environment.globals["version"] = __version__
    return environment.get_template(path.name)


def with_contents(page: str) -> Markup:
    """The page's body, its sections with anchors, and before the first one a list of them where there are many."""
    found = list(_HEADING.finditer(page))
    if len(found) < LONG:
        return Markup(page)
    names: dict[str, str] = {}
    for match in found:
        text = re.sub(r"<[^>]+>", "", match["text"]).strip()
        slug = match["id"] or re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "section"
        while slug in names:
            slug += "-"
        names[slug] = text
    items = "".join(f'<li><a href="#{slug}">{text}</a></li>' for slug, text in names.items())
    slugs = iter(names)
    body = _HEADING.sub(lambda match: f'<h2 id="{next(slugs)}">{match["text"]}</h2>', page)
    first = body.index("<h2")
    return Markup(f'{body[:first]}<nav class="contents" aria-label="Contents"><ol>{items}</ol></nav>\n{body[first:]}')
