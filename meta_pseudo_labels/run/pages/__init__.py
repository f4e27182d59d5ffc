"""Pages about runs: each is one HTML file, which needs no other.

Templates are Jinja2's, so that text from users is escaped wherever it stands.
Figures are SVG within the page, drawn by `plots` and the macros: they take the
colors of the page, light or dark, which matplotlib's figures would not.
"""

import os

import jinja2

from meta_pseudo_labels.run.progress_lines import duration

_TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")


def render(template, **values):
    """A page as ASCII text, which no locale and no mail program can spoil.

    Args:
      template: its file in templates/.
      **values: the variables of the template.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "duration": duration,
        "number": number,
        "percent": percent,
    }
    page = environment.get_template(template).render(**values)
    return page.encode("ascii", "xmlcharrefreplace").decode()


def percent(share, digits=1):
    """A share in [0, 1], such as "91.6 %"; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def number(value, digits=4):
    """A number with commas, such as "1,297" or "0.4689"; a dash for None."""
    if value is None:
        return "–"
    if isinstance(value, int) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.{digits}g}"
