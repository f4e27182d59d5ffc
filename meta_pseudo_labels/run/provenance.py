"""What a run records of the machine and of its plug-ins' source."""

import json
import os
import platform
import socket

from meta_pseudo_labels.export.card import revision, versions
from meta_pseudo_labels.run.folder import MACHINE, PLUGINS
from meta_pseudo_labels.utils.files import read_object, write_whole
from meta_pseudo_labels.utils.plugins import source_digests
from meta_pseudo_labels.utils.settings import module_names

NOT_KNOWN = "not known"  # In place of a hash.


def plugin_sources(folder, start, plugins, *, begins):
    """What plugins.json must hold once training goes on.

    What was noted at `start` or later is dropped: it left no checkpoint, such
    as a plug-in that failed in its first step and was fixed.

    Args:
      folder: `RunFolder`.
      start: the step that training goes on from.
      plugins: see `module_names`; they are imported.
      begins: whether the run has nothing of its own to go on from.

    Returns:
      A dict by name, of dicts from the step at which a source came into use to
      its hash, or `NOT_KNOWN`; and a list of the names whose source has
      changed.

    Raises:
      ConfigError: if plugins.json or hparams.json cannot be read.
    """
    noted, earlier = {}, []
    if not begins:
        noted = _noted(folder)
        earlier = module_names(folder.settings().get("plugins")).split(",")
    found = {
        name: {k: one for k, one in versions.items() if int(k) < start}
        for name, versions in noted.items()
    }
    changed = []
    for name, digest in source_digests(plugins).items():
        digest = digest or NOT_KNOWN
        versions = found.setdefault(name, {})
        if name in earlier and name not in noted:
            versions["0"] = NOT_KNOWN  # Begun before there were hashes.
        last = versions[max(versions, key=int)] if versions else None
        if last != digest:
            versions[str(start)] = digest
        if last not in (None, NOT_KNOWN, digest) and digest != NOT_KNOWN:
            changed.append(name)
    return found, changed


def _noted(folder):
    path = folder.path(PLUGINS)
    if not os.path.exists(path):
        return {}
    found = read_object(path, "the plug-ins of a run").items()
    return {name: one for name, one in found if isinstance(one, dict)}


def save_plugin_sources(folder, found):
    """Writes plugins.json if there is or was something to say.

    Args:
      folder: `RunFolder`.
      found: see `plugin_sources`.
    """
    path = folder.path(PLUGINS)
    if found or os.path.exists(path):
        write_whole(path, json.dumps(found, indent=2) + "\n")


def save_machine(folder, devices):
    """Writes machine.json: what the last start of training ran on.

    Args:
      folder: `RunFolder`.
      devices: in words.
    """
    found = {
        "host": socket.gethostname(),
        "devices": devices,
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "revision": revision(),
        **versions(),
    }
    write_whole(folder.path(MACHINE), json.dumps(found, indent=2) + "\n")
