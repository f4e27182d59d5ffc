"""The site's own pages and hooks; `make docs` checks links and anchors."""

import dataclasses
import importlib
import inspect
import json
import os
import pathlib
import re
import subprocess
import sys
import types

import pytest
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

import meta_pseudo_labels
from docs.site import hooks, release_flags, settings_pages
from meta_pseudo_labels import data, learners, models, optimizers, release
from meta_pseudo_labels.release.idle_flags import IDLE_FLAGS
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.stages import STAGES

ROOT = pathlib.Path(__file__).parents[1]
API = ROOT / "docs" / "reference" / "api"


def documented():
    """The dotted names that the pages of the API show, in a list."""
    return [
        name
        for page in sorted(API.glob("*.md"))
        for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)
    ]


def test_the_api_pages_name_what_is_there_once():
    names = documented()
    assert len(names) == len(set(names)) > 80
    for name in names:
        module, thing = name.rsplit(".", 1)
        found = getattr(importlib.import_module(module), thing)
        assert f"{found.__module__}.{found.__qualname__}" == name
        assert inspect.getdoc(found), name


@pytest.mark.parametrize(
    "room",
    [meta_pseudo_labels, data, learners, models, optimizers, release],
    ids=lambda room: room.__name__,
)
def test_every_public_name_is_on_a_page(room):
    names = documented()
    for name in room.__all__:
        thing = getattr(room, name)
        if inspect.isclass(thing) or inspect.isfunction(thing):
            dotted = f"{thing.__module__}.{thing.__qualname__}"
            assert dotted in names, f"Add ::: {dotted} to docs/reference/api."


def test_the_page_of_flags_has_every_flag_once():
    page = settings_pages.flags_page()
    shown = re.findall(r"^\| `--(\w+)` \|", page, re.MULTILINE)
    names = {field.name for field in dataclasses.fields(Config)}
    names |= {flag.name for flag in IDLE_FLAGS}
    names |= {"dataset_name", "recipe", "plugin", "callback"}
    assert sorted(shown) == sorted(names - {"plugins", "callbacks"})
    rows = {
        line.split("`")[1]: line for line in page.splitlines() if "`" in line
    }
    # By hand, from the release's two flagfiles.
    assert rows["--uda_weight"].startswith(
        "| `--uda_weight` | `1.0` | `1.0`; CIFAR-10 `8.0`; ImageNet `20.0` | "
    )
    assert rows["--use_augment"].startswith(
        "| `--use_augment` | `false` | `false`; CIFAR-10 `false`; ImageNet "
    )
    # The release has none; ours differs from the release's.
    assert rows["--method"].startswith("| `--method` | `mpl` | – | ")
    assert rows["--image_size"].startswith("| `--image_size` | none | `32`; ")


def test_words_are_shown_as_they_are():
    assert settings_pages.text("a|b_c <d> --lr=0.1, docs/long_runs.md") == (
        r"a\|b\_c &lt;d&gt; `--lr=0.1`, [long\_runs](../long_runs.md)"
    )


def test_the_kept_defaults_are_those_of_the_release(reference_dir):
    found = json.loads((reference_dir / "release_flags.json").read_text())
    kept = release_flags.TABLE.read_text().splitlines()[1:]
    rows = [",".join(row) for row in release_flags.rows(found)]
    assert len(kept) == 80 and [row.replace('"', "") for row in kept] == [
        row.replace('"', "") for row in rows
    ]


def test_the_page_of_files_has_every_file():
    page = settings_pages.run_files_page()
    paths = [file.path for stage in STAGES.values() for file in stage.files]
    assert re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE) and all(
        f"| `{path}` |" in page for path in paths
    )
    assert page.index("## train") < page.index("## export")


@pytest.fixture
def moved(tmp_path):
    """A function from Markdown on a page to what becomes of its links."""
    config = types.SimpleNamespace(
        site_dir=str(tmp_path), use_directory_urls=False, plugins=None
    )
    config.plugins = types.SimpleNamespace(_current_plugin="hooks")
    files = Files([])

    def move(markdown, uri="data.md"):
        file = File(uri, str(tmp_path), str(tmp_path), False)
        page = types.SimpleNamespace(file=file)
        return hooks.on_page_markdown(markdown, page, config, files)

    move.files = files
    return move


def test_links_to_the_repository_become_links_within_the_site(moved):
    assert moved("[a](../flags/digits.flags) [b](long_runs.md#settings)") == (
        "[a](source/flags/digits.flags) [b](long_runs.md#settings)"
    )
    assert moved.files.get_file_from_path("source/flags/digits.flags")
    assert moved("[a](../../flags/digits.flags)", "reference/http.md") == (
        "[a](../source/flags/digits.flags)"
    )
    # Of pages that stand elsewhere in the repository.
    assert moved("[a](../tpu/README.md#time-and-cost)") == (
        "[a](tpu.md#time-and-cost)"
    )
    assert moved("[a](../docs/scaling.md)", "tpu.md") == "[a](scaling.md)"
    # A folder is nothing to look at.
    assert moved("[the stages](../meta_pseudo_labels/run)") == "the stages"
    assert moved("![a](../x.png) [b](https://x.org/y)") == (
        "![a](../x.png) [b](https://x.org/y)"
    )


def test_a_link_to_nothing_is_refused(moved):
    with pytest.raises(PluginError, match="data.md links to ../flags/no.flags"):
        moved("[a](../flags/no.flags)")


def test_the_site_can_be_searched_without_a_server():
    """For which the theme would load a script from elsewhere."""
    settings = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert re.search(r"^  - search\n(  #.*\n)*  - offline\n", settings, re.M)
    (script,) = re.findall(r"^    - (.*iframe-worker.*)$", settings, re.M)
    assert (ROOT / "docs" / script).is_file()


@pytest.mark.long
def test_the_site_is_built_and_asks_no_other_server(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict"]
    quiet = {"NO_MKDOCS_2_WARNING": "1"}  # As `make docs` sets it.
    result = subprocess.run(
        [*command, "-d", tmp_path],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | quiet,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout + result.stderr == ""  # TensorFlow's notes neither.
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > 40
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|iframe)\b[^>]*\bsrc=\"(https?://[^\"]*)|"
            r"<link\b[^>]*\bhref=\"(https?://[^\"]*)",
            page.read_text(encoding="utf-8"),
        )
        assert not loaded, page
    # What a page that was opened as a file searches, and by what.
    index = (tmp_path / "search/search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = {")
    home = (tmp_path / "index.html").read_text(encoding="utf-8")
    (worker,) = re.findall(r'<script src="([^"]*iframe-worker[^"]*)"', home)
    assert (tmp_path / worker).is_file()
