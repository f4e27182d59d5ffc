"""Pages that tell of runs: one HTML file each, which needs no other.

Templates are Jinja2's, so that texts of users are escaped wherever they stand.
Figures are SVG within the page, drawn by `plots` and the macros: they take the
colours of the page, light or dark, which those of matplotlib would not.
"""

import os

import jinja2

from meta_pseudo_labels.run.progress_lines import duration

_TEMPLATES = os.path.join(os.path.dirname(__file__), "templates")


def render(template, **values):
    """A page, as text in ASCII: no locale and no mail can spoil it.

    Args:
      template: its file in templates/.
      **values: what it is of.
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
