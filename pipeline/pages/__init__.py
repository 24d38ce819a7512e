"""HTML pages: a jinja2 template is next to the code that fills it, and extends the base and the style sheet here.

    {% extends "base.html.j2" %}
    {% block title %}...{% endblock %}
    {% block style %}...{% endblock %}      what only this page has
    {% block page %}...{% endblock %}

A page is one file: no script, no font, no picture from elsewhere. ``style.css`` has the colours (light and dark), the
text, tables, cards, headline numbers and keys that all pages share.
"""

from pathlib import Path

import jinja2


def template(path: Path) -> jinja2.Template:
    """The template at ``path``: values are escaped, and one that is not given is an error, not an empty place."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([path.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)
