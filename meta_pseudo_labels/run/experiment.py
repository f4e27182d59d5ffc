"""One run, from its settings to a served model.

    experiment = Experiment(Config(output_dir="runs/digits", ...))
    experiment.train()
    experiment.finetune()
    print(experiment.evaluate())
    experiment.export()

Each stage leaves its result in output_dir and can be started from there alone:

    hparams.json      every setting
    machine.json      what the last start of its training ran on
    plugins.json      hashes of the source of its plug-ins, if it has any
    labeled.json      which images keep their labels
    weights.json      which weights it began with, if any were given
    metrics.jsonl     the logged steps and evaluations, a JSON object per line
    events/           the same for TensorBoard
    checkpoints/      the learner, every `save_every` steps
    best/             the one that was best on the held-out images
    callbacks/        what callbacks of users keep, such as ids of their runs
    done              says that training ended at its last step
    finetune/         the finetuned student, and the logs of its finetuning
    eval.json         accuracies on the test images, and on held-out ones
    eval_report.json  details on them; eval_confusion.png, eval_reliability.png
    eval_mistakes.json  the most confident mistakes of each, with the pictures
    eval_sources/     the same for other images
    evals/, acc       accuracies of every checkpoint; the latest and the best
    inference/        predictions of images, in CSV and Parquet
    saved_model/      the exported student, versions 1, 2, ...
    diagnosis.json    what the feedback is worth; diagnosis.png next to it
    review/           labels to doubt, and images to label next
    report.html       how the run went, on one page
    data.json         what `inspect` found in the data; next to it views.png,
                      and look_alikes.png, images that may be copies
    class_distributions.npz  the student's predictions for all images, for a
                      run with `teacher_labels`; its teacher_labels.json names
                      their source
"""

import functools

import tensorflow as tf
from absl import logging

from meta_pseudo_labels import data
from meta_pseudo_labels.distribute.strategies import describe, worker_of
from meta_pseudo_labels.learners.build import build_learner
from meta_pseudo_labels.learners.trainer import callbacks_of
from meta_pseudo_labels.run.callbacks import named_callbacks
from meta_pseudo_labels.run.data import (
    check_answers,
    evaluation_batches,
    load_all_labels,
    load_data,
    require_test_images,
)
from meta_pseudo_labels.run.devices import (
    reports_lost_workers,
    training_strategy,
)
from meta_pseudo_labels.run.finetuned import finetuned_student, is_finetuned
from meta_pseudo_labels.run.folder import RunFolder, resets
from meta_pseudo_labels.run.labeled_choice import (
    as_trained,
    check_choice_of_labels,
)
from meta_pseudo_labels.run.memory import check_memory
from meta_pseudo_labels.run.precision import settled
from meta_pseudo_labels.run.pretrained import check_weights
from meta_pseudo_labels.run.restoring import fitting_learner, restore_learner
from meta_pseudo_labels.run.stages import STAGES
from meta_pseudo_labels.run.stages.cache_labels import cache_labels_of_run
from meta_pseudo_labels.run.stages.diagnose import diagnose_run
from meta_pseudo_labels.run.stages.evaluate import evaluate_run
from meta_pseudo_labels.run.stages.export import export_run
from meta_pseudo_labels.run.stages.finetune import finetune_run
from meta_pseudo_labels.run.stages.follow import digests_of, follow
from meta_pseudo_labels.run.stages.inspect import inspect_run
from meta_pseudo_labels.run.stages.predict import infer_run
from meta_pseudo_labels.run.stages.train import train
from meta_pseudo_labels.utils.settings import ConfigError, user_error


class Experiment:
    """Builds what a run needs from its settings, and runs its stages.

    Args:
      config: the `Config` of the run.
      data: `data.ImageData` or `data.ShardedData` to use instead of what
        config.dataset names. Later stages need the same again.
      callbacks: a Keras callback, or several, for training and finetuning,
        after those of the run, in every worker; those of config.callbacks come
        after them, in the first worker only. In a run that resumes within an
        epoch, `on_train_begin` is called twice; whenever the unlabeled batch
        grows, `on_train_end` and `on_train_begin` are called. Those with a
        `close` are closed however it ends.

    Raises:
      ConfigError: if output_dir is missing, or holds a run with other settings;
        before training, if config.callbacks cannot be made.
    """

    def __init__(self, config, data=None, callbacks=()):
        if config.deterministic:
            tf.config.experimental.enable_op_determinism()
        self.config = config
        self.callbacks = tuple(callbacks_of(callbacks))
        self._given = data
        self._stage = STAGES[config.task_mode]
        self.folder = RunFolder(config.output_dir)
        self.output_dir = self.folder.require(
            must_exist=self._stage.needs_run and not resets(config)
        )
        self.config = config = settled(config, self.folder)
        if data is None:
            check_memory(config, trains=self._stage.trains)
        if self._stage.trains or not self._stage.needs_run:
            check_weights(config)  # Of a run to come, also in `inspect`.
        if self._stage.trains:
            check_answers(config, given=data is not None)
            _ = self._named_callbacks  # Fails now if they cannot be made.
        self._changed = None  # Changed settings, in a line.
        self._is_new = True  # Whether output_dir's run, if any, is not meant.
        if resets(config):
            self.folder.check_reset()
            return
        if not self._stage.needs_run:
            self.folder.check_begin()
        self.folder.check_kinds(self._stage.files)
        # Not to inspect the data of a run to come.
        if self._stage.needs_run or not config.reset_output_dir:
            self._changed = self.folder.check_same_training(config)
            self._is_new = False

    @functools.cached_property
    def data(self):
        """The images, as `data.ImageData` or `data.ShardedData`."""
        try:
            images = load_data(self.config, self._given)
        except ConfigError as error:
            images = self._images_of_changed_files(error)
        if self._stage.looks_only:
            images = as_trained(self.config, images)
        elif self._changed and (self._stage.needs_run or self._stage.trains):
            learns = self._stage.trains
            check_choice_of_labels(self.config, images, learns=learns)
        if self._changed:  # Only now that the data is accepted.
            logging.warning("%s", self._changed)
        return images

    def _images_of_changed_files(self, error):
        """All labeled images, for a stage that only looks at them.

        Raises:
          ConfigError: for other stages, naming a file that was removed or
            added since the run began; else the error, if that is not why.
        """
        if self._given is not None or self._changed or self._is_new:
            raise error
        images = load_all_labels(self.config)
        if images is None:
            raise error
        if not self._stage.looks_only:
            check_choice_of_labels(self.config, images, learns=False)
            raise error
        logging.warning(
            "Labeled files were removed or added since the run began, so its "
            "choice cannot be repeated (%s). All that have a label are used.",
            error,
        )
        return images

    @functools.cached_property
    def test_dataset(self):
        """All test images once; None if there are none."""
        return evaluation_batches(self.config, self.data)

    @functools.cached_property
    def validation_dataset(self):
        """Images of num_validation, as `test_dataset`; None if it is 0."""
        if not self.config.num_validation:
            return None
        return data.validation_dataset(
            self.data, batch_size=self.config.eval_batch_size
        )

    @property
    def _choosing_dataset(self):
        """Images to evaluate on during training, and to choose the best by."""
        if self.config.best_on == "test":
            require_test_images(
                self.data,
                why="--best_on=test",
                instead="or choose on those of --num_validation",
            )
            return self.test_dataset
        return self.validation_dataset or self.test_dataset

    @functools.cached_property
    def _named_callbacks(self):
        return named_callbacks(self.config)

    @functools.cached_property
    def learner(self):
        """The compiled learner, with fresh weights until it is restored.

        For training it is built in the scope of the strategy. The other stages
        run on one device.
        """
        if not self._stage.trains:
            return self._built_learner(self.data)
        # Before the data: once TensorFlow has run, its devices are fixed.
        strategy = training_strategy(self.config)
        images = self.data
        # Workers already share the first value of each variable.
        with reports_lost_workers(strategy, self.config), strategy.scope():
            return self._built_learner(images)

    def _fit_learner(self, wanted):
        """Builds the learner for as many images as a checkpoint is of.

        Only methods that keep a value for each unlabeled image need that.
        """
        build = functools.partial(self._built_learner, self.data)
        self.learner = fitting_learner(
            self.learner, build, wanted, self.output_dir
        )

    def _built_learner(self, images, *, unlabeled=None):
        check_memory(
            self.config,
            image_size=images.spec.image_size,
            num_classes=images.spec.num_classes,
            trains=self._stage.trains,
        )
        return user_error(
            build_learner,
            self.config,
            images.spec,
            unlabeled=unlabeled or len(images.unlabeled_images),
        )

    def devices(self):
        """What training runs on, in words."""
        return describe(self.learner.distribute_strategy)

    def train(self):
        """Trains to num_train_steps, from the latest checkpoint on.

        Returns:
          Whether there was anything left to do.
        """
        first = worker_of(self.learner.distribute_strategy) == 0
        named = self._named_callbacks if first else ()
        return train(
            self.learner,
            self.config,
            self.data,
            validation=self._choosing_dataset,
            callbacks=[*self.callbacks, *named],
        )

    def inspect(self):
        """Looks at the data: counts, classes, sizes, statistics, views.

        Writes data.json and the sheet views.png to output_dir, the latter
        where matplotlib is installed.

        Returns:
          The facts as text, for a terminal.
        """
        return inspect_run(self.config, self.data)

    def finetune(self):
        """Finetunes the student of a checkpoint on the labels.

        Returns:
          Whether there was anything left to do.
        """
        callbacks = [*self.callbacks, *self._named_callbacks]
        return finetune_run(
            self.trained_learner(),
            self.config,
            self.data,
            callbacks=callbacks,
        )

    def evaluate(self):
        """Accuracies of all networks of the run; writes what `judge` does.

        Returns:
          The dict of eval.json, by network: `student` (its moving average, if
          there is one), `student_raw`, `teacher`, `finetuned`, and
          `saved_model` if the settings name one. With num_validation, its
          `validation` is such a dict too, for the held-out images.
        """
        return self.judge().accuracies

    def judge(self):
        """Evaluates all networks, see `stages.evaluate`."""
        learner = self.trained_learner()
        finetuned = self.finetuned_student(learner)
        return evaluate_run(learner, finetuned, self.config, self.data)

    def follow(self, *, forever):
        """Evaluates every checkpoint once, see `stages.follow`.

        Args:
          forever: whether to wait for more of them, until training is done.
        """
        self.folder.require(must_exist=True)
        check_choice_of_labels(self.config, self.data, learns=False)
        held_out = self.validation_dataset
        datasets = {} if held_out is None else {"validation": held_out}
        if not datasets:
            require_test_images(self.data)
        if self.test_dataset is not None:
            datasets = {"test": self.test_dataset} | datasets
        best_on = self.config.best_on
        self._fit_learner("latest")
        return follow(
            self.learner,
            self.folder,
            datasets,
            digests=digests_of(self.data, datasets),
            forever=forever,
            best_on=best_on if best_on in datasets else next(iter(datasets)),
        )

    def diagnose(self):
        """Measures what the feedback is worth; see `stages.diagnose`.

        Returns:
          A table, for a terminal.
        """
        return diagnose_run(self.trained_learner(), self.config, self.data)

    def is_finetuned(self):
        """Whether the student of the latest checkpoint has been finetuned."""
        return is_finetuned(self.trained_learner(), self.config)

    def export(self):
        """Writes the student, finetuned if it was, as a SavedModel.

        Returns:
          The folder of the new version, saved_model/1 at first.
        """
        student = self._final_student()
        finetuned = student is not self.learner.student
        return export_run(
            student,
            self.config,
            self.data,
            network="finetuned" if finetuned else "student",
            step=int(self.learner.step.numpy()),
        )

    def cache_labels(self):
        """Writes a network's class distributions for all images to learn from.

        Returns:
          The path of the file.
        """
        return cache_labels_of_run(self)

    def infer(self):
        """Predicts images, see `stages.predict`."""
        return infer_run(self)

    def trained_learner(self, wanted=None):
        """The learner as a checkpoint has it, by default `from_checkpoint`.

        Raises:
          CheckpointError: if there is none.
          ConfigError: if the data is not that of the run.
        """
        self.folder.require(must_exist=True)
        if not self._stage.looks_only:  # Otherwise `data` is checked.
            check_choice_of_labels(self.config, self.data, learns=False)
        wanted = wanted or self.config.from_checkpoint
        self._fit_learner(wanted)
        restore_learner(self.learner, wanted, self.output_dir)
        return self.learner

    def finetuned_student(self, learner):
        """The student finetuned from a learner's step; None if none was."""
        return finetuned_student(learner, self.config, self.data.spec)

    def _final_student(self):
        """The student of the latest checkpoint, finetuned if it was."""
        learner = self.trained_learner()
        return self.finetuned_student(learner) or learner.finished_student()
