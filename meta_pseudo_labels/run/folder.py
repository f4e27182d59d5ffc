"""The folder of a run: its files, its settings, its state, its reset.

The stages say which files there are, see `run_files`.
"""

import contextlib
import dataclasses
import glob
import os

from meta_pseudo_labels.run.config.core import free_settings
from meta_pseudo_labels.run.config.run import OWN_CHECKPOINTS
from meta_pseudo_labels.run.places import check_place, special_place
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.utils.deleting import check_deletable, delete
from meta_pseudo_labels.utils.files import (
    LOCK,
    locked,
    path_hash,
    read_object,
    replaced_by,
    scratch_files,
    write_whole,
)
from meta_pseudo_labels.utils.settings import ConfigError, user_error

HPARAMS = "hparams.json"
LABELED = "labeled.json"
DATA = "data.json"
VIEWS, LOOK_ALIKES = "views.png", "look_alikes.png"
TEACHER_LABELS = "teacher_labels.json"
WEIGHTS = "weights.json"
MACHINE = "machine.json"
PLUGINS = "plugins.json"
DONE = "done"
EVALS, ACCURACY = "evals", "acc"
FINETUNE = "finetune"
INFERENCE = "inference"
EVAL, EVAL_REPORT = "eval.json", "eval_report.json"
EVAL_CONFUSION, EVAL_RELIABILITY = "eval_confusion.png", "eval_reliability.png"
EVAL_MISTAKES = "eval_mistakes.json"
EVAL_SOURCES = "eval_sources"
REVIEW = "review"
REVIEW_SUMMARY = "review.json"
ANSWERED = "labels.csv", "to_label.csv", "pseudo_labels.csv"  # By users.
_CHOICE = "source", "label_subset", "indices"  # See `labeled_choice`.
_FOLDERS = ("checkpoints", "best", "events", "callbacks", "saved_model")
_HARMLESS = (".log", ".txt", ".out", ".err", ".pid", "lost+found")
_FOLDERS += (EVALS, FINETUNE, INFERENCE, EVAL_SOURCES, REVIEW)


class RunFolder:
    """The folder of a run.

    Args:
      path: of the folder, which may be missing.
    """

    def __init__(self, path):
        self._path = path

    def __str__(self):
        return self._path

    def __fspath__(self):
        return self._path

    def path(self, *names):
        """The path of something in it."""
        return os.path.join(self._path, *names)

    def require(self, *, must_exist=False):
        """Refuses a folder that no run can be in; returns its path.

        Raises:
          ConfigError: see `places.check_place`.
        """
        check_place(self._path, must_exist=must_exist)
        return self._path

    def check_kinds(self, files):
        """Refuses folders in the place of files, and vice versa.

        Args:
          files: the `RunFile`s to be written.

        Raises:
          ConfigError: for one of them, or a folder that may not be changed.
        """
        for name in {file.path.partition("/")[0] for file in files}:
            path, why = self.path(name), None
            if not os.path.exists(path):
                continue
            if name in _FOLDERS and not os.path.isdir(path):
                why = "is not a folder, but must be one"
            elif name in _FOLDERS and not os.access(path, os.W_OK | os.X_OK):
                why = "is a folder that you may not write to"
            elif "." in name and not os.path.isfile(path):
                why = "is not a file, but must be one"
            if why:
                raise ConfigError(
                    f"{path} {why}. Move it away, or name another --output_dir."
                )

    def settings(self):
        """The settings of the run, a dict; empty if there is none.

        Raises:
          ConfigError: if its hparams.json cannot be read.
        """
        if not self._path or not os.path.exists(self.path(HPARAMS)):
            return {}
        return read_object(self.path(HPARAMS), "the settings of a run")

    def save_settings(self, config):
        """Writes all settings to hparams.json, as those of a run to resume.

        reset_output_dir and allow_hparam_change are about the folder as it
        was; a later stage that read them from the file would not check what
        it finds.
        """
        settings = dataclasses.replace(
            config, reset_output_dir=False, allow_hparam_change=False
        )
        write_whole(self.path(HPARAMS), settings.to_json())

    def check_same_training(self, config):
        """Refuses to resume a run with settings other than its own.

        Returns:
          A line that lists them, if allow_hparam_change accepts them; or None.

        Raises:
          ConfigError: with each setting that differs from the saved ones.
        """
        saved = self.settings()
        differences = []
        for field in dataclasses.fields(config):
            now = getattr(config, field.name)
            # An old run had the default of settings that it did not know.
            before = saved.get(field.name, field.default) if saved else now
            if before != now and not _may_change(field.name, before, now):
                differences.append(f"{field.name} was {before}, is now {now}")
        if not differences:
            return None
        text = f"{self} holds a run with other settings: "
        text += f"{'; '.join(differences)}."
        if not config.allow_hparam_change:
            raise ConfigError(
                f"{text} Use the run's own (is the --recipe or --flagfile "
                "missing?) or another --output_dir; --allow_hparam_change goes "
                "on with the new ones."
            )
        return f"{text} It goes on with the new ones."

    def finetuned_path(self, step, source="latest"):
        """The path of the student that was finetuned from a checkpoint.

        Args:
          step: of the checkpoint.
          source: the checkpoint, see `from_checkpoint`.
        """
        of_another = ""
        if source not in OWN_CHECKPOINTS:  # Two may have its step.
            of_another = f"-of-{path_hash(source)}"
        return self.path(FINETUNE, f"from-step-{step}{of_another}.weights.h5")

    def mark_done(self, steps):
        """Writes the file `done`, as the release does when a run has ended."""
        write_whole(self.path(DONE), f"{steps} steps\n")

    def is_done(self):
        """Whether training has ended at its last step."""
        return os.path.exists(self.path(DONE))

    def mark_not_done(self):
        """Removes the file `done` of a run that is resumed.

        Raises:
          ConfigError: if it is a folder, which no run wrote.
        """
        path = self.path(DONE)
        if os.path.isdir(path) and not os.path.islink(path):
            raise ConfigError(
                f"{path} is not a file, but must be one. Move it away, or name "
                "another --output_dir."
            )
        delete(path)

    def reset(self):
        """Deletes what runs write (`run_files`), and nothing else.

        Of a link, only the link. The release deletes the folder with all that
        it holds.

        Raises:
          ConfigError: see `check_reset`; nothing is deleted then.
        """
        self.check_reset()
        with self._stages_locked():
            delete(*self._run_paths())

    def check_reset(self):
        """Refuses to reset a folder that is not clearly that of a run.

        Raises:
          ConfigError: for a root, a home, a repository, or a folder that holds
            files, but no run of ours; if another process finetunes, follows or
            predicts with the run; and if not all could be deleted, see
            `check_deletable`.
        """
        if not os.path.isdir(self) or not set(os.listdir(self)) - {LOCK}:
            return
        what = special_place(self)
        if what is None and not self._is_run():
            what = f"holds files, but no {HPARAMS} of a run"
        if what:
            raise ConfigError(
                f"--reset_output_dir: {self} {what}, so nothing was deleted. "
                "Empty it yourself or name another --output_dir."
            )
        self.check_unanswered()
        with self._stages_locked():
            check_deletable(*self._run_paths())

    @contextlib.contextmanager
    def _stages_locked(self):
        """Keeps stages out that lock a folder of their own in the run's.

        Raises:
          ConfigError: if another process holds such a lock.
        """
        found = [
            lock
            for name in map(glob.escape, map(self.path, run_files()))
            for within in (LOCK, os.path.join("*", LOCK))
            for lock in glob.glob(os.path.join(name, within))
        ]
        with contextlib.ExitStack() as stack:
            for lock in found:
                stack.enter_context(locked(os.path.dirname(lock)))
            yield

    def check_unanswered(self):
        """Refuses to delete what somebody wrote into a table of a review.

        Raises:
          ConfigError: if there is such a table, or one cannot be read.
        """
        from meta_pseudo_labels.data.answers import read_answers

        for name in ANSWERED:
            path = self.path(REVIEW, name)
            if os.path.exists(path) and (
                given := user_error(read_answers, path)
            ):
                raise ConfigError(
                    f"{path} holds {len(given)} labels that somebody wrote "
                    "into it; move it elsewhere first. --labels_csv of the "
                    "next run reads it."
                )

    def check_begin(self):
        """Refuses to begin a run among other files.

        What a folder has before its first run, such as logs, may be there;
        what runs write after their hparams.json is not ours without it, even
        under the same name: a later reset would delete it.

        Raises:
          ConfigError: for a root, a home, a repository, or a folder that holds
            other files, if there is no run yet.
        """
        if not os.path.isdir(self) or self._has_settings():
            return
        ours = _begun()
        if self._has_choice():  # Only its settings are lost.
            ours |= {*run_files()} - {HPARAMS}
        else:
            ours -= {LABELED}
        others = [
            name
            for name in _others(self, ours)
            if not name.startswith(".") and not name.endswith(_HARMLESS)
        ]
        what = special_place(self)
        if what is None and others:
            what = f"holds {others[0]}, which no run wrote"
        if what:
            raise ConfigError(
                f"--output_dir={self} {what}. Name a folder for the run alone; "
                "it need not exist."
            )

    def _run_paths(self):
        """Paths of all that a run may leave, in the order of deletion."""
        return [
            path
            for whole in map(self.path, run_files())
            for path in (*scratch_files(whole), whole)
        ]

    def _is_run(self):
        """Whether it is that of a run, or of one killed at its beginning."""
        return self._has_settings() or not _others(self, _begun())

    def _has_choice(self):
        """Whether its labeled.json is one of ours."""
        try:
            read_object(self.path(LABELED), "a choice", keys=_CHOICE)
        except ConfigError:
            return False
        return True

    def _has_settings(self):
        """Whether its hparams.json is one of ours.

        The release writes one too, but without this setting.
        """
        return "mpl_feedback" in self.settings()


def _begun():
    """Names of what may be there before hparams.json."""
    return {*run_files(early=True), LOCK}


def _others(folder, ours):
    """Sorted names of what is neither among `ours` nor a scratch file of ours.

    A process that is killed as it writes may leave one of any file.
    """
    files = set(run_files())
    return [
        name
        for name in sorted(os.listdir(folder))
        if name not in ours and replaced_by(name) not in files
    ]


def run_files(*, early=False):
    """Names of all that stages leave in a run's folder.

    hparams.json, which tells a run from other folders, comes last, so that a
    killed reset can be repeated.

    Args:
      early: whether to return only what may be there before hparams.json.
    """
    names = [
        file.path.partition("/")[0]
        for stage in STAGES.values()
        for file in stage.files
        if file.early or not early
    ]
    return sorted(dict.fromkeys(names), key=lambda name: name == HPARAMS)


def resets(config):
    """Whether a run begins by deleting what output_dir holds."""
    return config.reset_output_dir and STAGES[config.task_mode].trains


def _may_change(name, before, now):
    if name == "teacher_labels":  # Its content is checked where it is read.
        return bool(before) == bool(now)
    return name in free_settings()
