"""The source of plug-ins that a run notes, as of which step."""

import json
import os
import sys
import types

import pytest

from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.folder import PLUGINS, RunFolder
from meta_pseudo_labels.run.provenance import (
    plugin_sources,
    save_plugin_sources,
)
from meta_pseudo_labels.utils.plugins import load_plugins, source_digests
from meta_pseudo_labels.utils.settings import ConfigError
from tests.plugin_source import source_writer


@pytest.fixture
def source(tmp_path_factory, monkeypatch):
    """A function that gives the plug-in `noted` a source, as after a start."""
    write_source = source_writer("noted", tmp_path_factory, monkeypatch)

    def write(text):
        write_source(text)
        load_plugins("noted")
        return source_digests("noted")["noted"]

    return write


def go_on(folder, start, *, begins=False, plugins="noted"):
    """What plugins.json says once training began at a step; and who changed."""
    folder = RunFolder(str(folder))
    found, changed = plugin_sources(folder, start, plugins, begins=begins)
    folder.save_settings(Config(plugins=plugins))
    save_plugin_sources(folder, found)
    if os.path.exists(folder.path(PLUGINS)):
        with open(folder.path(PLUGINS)) as file:
            assert json.load(file) == found
    return found, changed


def test_each_source_of_a_plug_in_is_noted_once(source, tmp_path):
    a = source("FACTOR = 1\n")
    want = {"noted": {"0": a}}
    assert go_on(tmp_path, 0, begins=True) == (want, [])
    assert go_on(tmp_path, 2) == (want, [])
    b = source("FACTOR = -1000\n")
    want = {"noted": {"0": a, "4": b}}
    assert go_on(tmp_path, 4) == (want, ["noted"])
    assert go_on(tmp_path, 6) == (want, [])
    assert go_on(tmp_path, 0, begins=True) == ({"noted": {"0": b}}, [])
    # From the checkpoint of another run, whose steps are counted on.
    assert go_on(tmp_path, 7, begins=True) == ({"noted": {"7": b}}, [])


def test_a_source_that_left_no_checkpoint_is_forgotten(source, tmp_path):
    """It failed in its first step, say, and was mended."""
    source("FACTOR = None\n")
    go_on(tmp_path, 0, begins=True)
    a = source("FACTOR = 1\n")
    assert go_on(tmp_path, 0, begins=True) == ({"noted": {"0": a}}, [])
    source("FACTOR = -1000\n")
    for _ in range(2):  # It goes on from the same step until one is saved.
        assert go_on(tmp_path, 2)[1] == ["noted"]
    source("FACTOR = 1\n")
    assert go_on(tmp_path, 2) == ({"noted": {"0": a}}, [])


def test_what_a_plug_in_was_before_there_were_hashes_is_not_known(
    source, tmp_path
):
    a = source("FACTOR = 1\n")
    RunFolder(str(tmp_path)).save_settings(Config(plugins="noted"))
    want = {"noted": {"0": "not known", "2": a}}
    for _ in range(2):
        assert go_on(tmp_path, 2) == (want, [])


def test_a_plug_in_that_came_later_has_no_past(source, tmp_path):
    a = source("FACTOR = 1\n")
    RunFolder(str(tmp_path)).save_settings(Config())
    for _ in range(2):
        assert go_on(tmp_path, 2) == ({"noted": {"2": a}}, [])


def test_a_plug_in_without_source_is_not_known_and_no_error(
    tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "noted", types.ModuleType("noted"))
    want = {"noted": {"0": "not known"}}
    assert go_on(tmp_path, 0, begins=True) == (want, [])
    assert go_on(tmp_path, 2) == (want, [])


def test_without_plug_ins_nothing_is_noted_of_them(tmp_path):
    assert go_on(tmp_path, 0, begins=True, plugins="") == ({}, [])
    assert not (tmp_path / PLUGINS).exists()


def test_a_run_that_begins_without_plug_ins_forgets_them(source, tmp_path):
    source("FACTOR = 1\n")
    go_on(tmp_path, 0, begins=True)
    assert go_on(tmp_path, 0, begins=True, plugins="") == ({}, [])


def test_a_torn_list_of_plug_ins_is_named(source, tmp_path):
    source("FACTOR = 1\n")
    (tmp_path / PLUGINS).write_text("{")
    with pytest.raises(ConfigError, match="plugins.json cannot be read"):
        go_on(tmp_path, 2)
    go_on(tmp_path, 0, begins=True)  # Nobody reads what is written anew.
