"""HTML pages from jinja2 templates that lie beside the code that fills them."""

from pathlib import Path

import jinja2


def template(path: Path) -> jinja2.Template:
    """The template at ``path``: values are escaped, and one that is not given is an error, not an empty place."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(path.parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(path.name)
