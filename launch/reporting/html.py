"""Pages from the templates of this package."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

import jinja2

from launch.reporting.metric_names import duration

TEMPLATES = Path(__file__).parent / "templates"


def template(name: str) -> jinja2.Template:
    """Load a template of this package. Its values are escaped: dialogues are untrusted input."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "link": quote}
    return environment.get_template(name)
