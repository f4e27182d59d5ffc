"""Resets a run: deletes what it wrote into its folder, and nothing else."""

import os
import shutil

from meta_pseudo_labels.run.folder import HPARAMS, saved_settings
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.files import LOCK, SCRATCH
from meta_pseudo_labels.utils.settings import ConfigError


def run_files():
    """Names of all that stages leave in a run's folder.

    hparams.json, which tells a run from other folders, comes last: a reset
    that was killed can be repeated.
    """
    names = [
        file.path.partition("/")[0]
        for stage in STAGES.values()
        for file in stage.files
    ]
    return sorted(dict.fromkeys(names), key=lambda name: name == HPARAMS)


def reset(config):
    """Deletes the run in output_dir, where reset_output_dir asks for it.

    Only before training, and only what runs write (`run_files`); of a link
    the link alone. The release deletes the folder with all that it holds.

    Raises:
      ConfigError: see `check_reset`; nothing is deleted then.
    """
    check_reset(config)
    if _has_something_to_reset(config):
        for name in run_files():
            for path in (name + SCRATCH, name):
                _delete(os.path.join(config.output_dir, path))


def check_reset(config):
    """Refuses to reset a folder that is not plainly that of a run.

    Raises:
      ConfigError: for a root, a home, a repository, or a folder that holds
        files, but no run of ours.
    """
    if not _has_something_to_reset(config):
        return
    folder = config.output_dir
    path = os.path.realpath(folder)
    what = None
    if path == os.path.dirname(path):
        what = "is the root of the file system"
    elif path == os.path.realpath(os.path.expanduser("~")):
        what = "is your home"
    elif os.path.exists(os.path.join(path, ".git")):
        what = "is a git repository"
    elif not _is_run(folder):
        what = f"holds files, but no {HPARAMS} of a run"
    if what:
        raise ConfigError(
            f"--reset_output_dir: {folder} {what}, so nothing was deleted. "
            "Empty it yourself or name another --output_dir."
        )


def _is_run(folder):
    """Whether a folder is that of a run, or of one killed as it began."""
    # The release writes a hparams.json too, but knows no such setting.
    if "mpl_feedback" in saved_settings(folder):
        return True
    early = {
        file.path
        for stage in STAGES.values()
        for file in stage.files
        if file.early
    }
    begun = early | {name + SCRATCH for name in early}
    return set(os.listdir(folder)) <= begun | {HPARAMS + SCRATCH, LOCK}


def _has_something_to_reset(config):
    folder = config.output_dir
    return (
        config.reset_output_dir
        and STAGES[config.task_mode].trains
        and os.path.isdir(folder)
        and bool(set(os.listdir(folder)) - {LOCK})
    )


def _delete(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.remove(path)
