"""The lock files: what requirements.txt asks for is pinned in its ranges."""

import importlib.metadata
import re

import pytest
from packaging.requirements import Requirement

from tests.scripts import ROOT

LOCKS = sorted((ROOT / "deploy" / "locks").glob("?pu-*.txt"))
BUILD = ROOT / "deploy" / "locks" / "build.txt"
PYPROJECT = ROOT / "pyproject.toml"


def requirements():
    lines = (ROOT / "requirements.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if line[:1] not in ("", "#")]


def pinned(text):
    """The version of each package in a lock file, by its name."""
    found = re.findall(r"^([\w.-]+)==(\S+)", text, flags=re.MULTILINE)
    return dict(found)


def canonical(name):
    return re.sub(r"[-_.]+", "-", name).lower()


def test_there_is_one_for_each_python_and_kind():
    assert [path.stem for path in LOCKS] == [
        *("cpu-3.11", "cpu-3.12", "gpu-3.11", "gpu-3.12")
    ]


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.stem)
def test_what_is_required_is_pinned_within_its_range(path):
    versions = pinned(path.read_text())
    python = path.stem.partition("-")[2]
    for requirement in requirements():
        marker = requirement.marker
        if marker and not marker.evaluate({"python_version": python}):
            continue
        version = versions[canonical(requirement.name)]
        assert version in requirement.specifier, (requirement, version)
    # The extras: figures and serve, and of GPUs NVIDIA's libraries.
    assert {"matplotlib", "aiohttp", "prometheus-client"} <= set(versions)
    has_nvidia = any(name.startswith("nvidia-") for name in versions)
    assert has_nvidia == path.stem.startswith("gpu")


def test_what_builds_the_wheel_is_pinned():
    system = re.search(r'requires = \["(.*)"\]', PYPROJECT.read_text())[1]
    requirement = Requirement(system)
    ((name, version),) = pinned(BUILD.read_text()).items()
    assert name == requirement.name and version in requirement.specifier


@pytest.mark.parametrize("path", [BUILD, *LOCKS], ids=lambda path: path.stem)
def test_every_pin_has_hashes_and_no_place_of_its_own(path):
    text = path.read_text()
    assert not re.search(r"://|^\s*--(?!hash=)|^#| @ |/", text, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text.strip())
    for entry in entries:
        assert re.match(r"[\w.-]+==\S+ (; .*)?\\\n +--hash=sha256:", entry)
    assert len(entries) == len(pinned(text))


def license(name):
    """What an installed package says of its license; None of an absent one."""
    try:
        found = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    kinds = [c for c in found.get_all("Classifier", []) if "License ::" in c]
    said = found.get("License-Expression") or " ".join(kinds)
    return said or (found.get("License") or "")[:80]


def test_licences_are_named_and_ask_for_nothing_in_return():
    """As docs/operations.md says of what `make licenses` lists."""
    text = (ROOT / "deploy" / "locks" / "cpu-3.11.txt").read_text()
    found = {name: license(name) for name in pinned(text)}
    known = {name: said for name, said in found.items() if said is not None}
    assert len(known) > 60
    assert {name for name, said in known.items() if not said} <= {"namex"}
    assert not [name for name, said in known.items() if "GPL" in said]
