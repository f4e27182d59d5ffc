"""docs/architecture.md: what it names is there."""

import pathlib
import re

from meta_pseudo_labels.utils.registry import Registry

ROOT = pathlib.Path(__file__).parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text()


def test_every_link_leads_somewhere():
    links = re.findall(r"\]\(([^)#]+)\)", TEXT)
    assert len(links) > 15
    for link in links:
        assert (ROOT / "docs" / link).exists(), link


def test_every_room_is_named():
    package = ROOT / "meta_pseudo_labels"
    rooms = {p.parent.name for p in package.glob("*/__init__.py")}
    assert len(rooms) == 10
    picture = re.search(r"```\n(run .*?)```", TEXT, re.DOTALL)[1]
    halves = re.split(r"\n|\|", picture)
    assert {half.split()[0] for half in halves if half.strip()} == rooms


def test_every_registry_is_named():
    from meta_pseudo_labels import models
    from meta_pseudo_labels.data.sources import SOURCES
    from meta_pseudo_labels.learners import LEARNERS
    from meta_pseudo_labels.run.stages import STAGES

    for name, registry in (
        ("LEARNERS", LEARNERS),
        ("FAMILIES", models.FAMILIES),
        ("SOURCES", SOURCES),
        ("STAGES", STAGES),
    ):
        assert isinstance(registry, Registry) and f"`{name}.register`" in TEXT
