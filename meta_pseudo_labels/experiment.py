"""One run, from its settings to a served model.

    experiment = Experiment(Config(output_dir="runs/digits", ...))
    experiment.train()
    experiment.finetune()
    print(experiment.evaluate())
    experiment.export()

Each stage leaves its result in output_dir and can be started from there alone:

    hparams.json      every setting
    metrics.jsonl     the logged steps and evaluations, one JSON object a line
    events/           the same for TensorBoard
    checkpoints/      the learner, every `save_every` steps
    finetuned.weights.h5   the finetuned student
    eval.json         accuracies on the test images
    saved_model/      the exported student
"""

import functools
import json
import os

import keras

from meta_pseudo_labels import data, evaluation, learners, models
from meta_pseudo_labels.callbacks import (
    MetricsLogger,
    Progress,
    SaveCheckpoint,
    StopAtStep,
    on_terminal,
)
from meta_pseudo_labels.checkpointing import (
    CheckpointError,
    checkpoint_manager,
    restore_latest,
)
from meta_pseudo_labels.config import (
    HPARAMS,
    ConfigError,
    check_same_training,
    require_output_dir,
)
from meta_pseudo_labels.export import export_saved_model
from meta_pseudo_labels.finetuning import finetune
from meta_pseudo_labels.optimizers import Momentum
from meta_pseudo_labels.schedules import WaitWarmupDecay, scale_by_batch

_SHOWN = {
    "loss/total": "loss",
    "cross_entropy/teacher_on_l": "teacher",
    "cross_entropy/student_on_u": "student",
}


class Experiment:
    """Builds what a run needs from its settings, and runs its stages.

    Args:
      config: the `Config` of the run.

    Raises:
      ConfigError: where output_dir is missing, or holds a run with other
        settings.
    """

    def __init__(self, config):
        self.config = config
        self.output_dir = require_output_dir(config)
        check_same_training(config)

    # What a run is made of.

    @functools.cached_property
    def data(self):
        """The images, as `data.ImageData`."""
        config = self.config
        return _user_error(
            data.load,
            config.dataset,
            num_labeled=config.num_labeled,
            seed=config.seed,
        )

    @functools.cached_property
    def test_dataset(self):
        return data.evaluation_dataset(
            self.data.test_images,
            self.data.test_labels,
            spec=self.data.spec,
            batch_size=self.config.eval_batch_size,
        )

    @functools.cached_property
    def learner(self):
        """The compiled learner, with fresh weights."""
        config = self.config
        keras.utils.set_random_seed(config.seed)
        student = self._model(config.model_type, name="student")
        settings = dict(
            label_smoothing=config.label_smoothing,
            ema_decay=config.ema_decay,
            ema_start=config.ema_start,
            log_every=config.log_every,
            seed=config.seed,
        )
        if config.method == "mpl":
            learner = self._meta_pseudo_labels(student, settings)
        elif config.method == "uda":
            learner = learners.UDA(student, uda=self._uda(), **settings)
        else:
            learner = learners.Supervised(student, **settings)
        optimizers = [Momentum(schedule) for schedule in self._schedules()]
        learner.compile(
            *optimizers,
            weight_decay=config.weight_decay,
            grad_bound=config.grad_bound,
            metrics=["accuracy"],
        )
        return learner

    @functools.cached_property
    def finetuned(self):
        """The finetuned student, read from output_dir."""
        path = self._path("finetuned.weights.h5")
        if not os.path.exists(path):
            return None
        student = self._model(self.config.model_type, name="student")
        student.load_weights(path)
        return student

    def _meta_pseudo_labels(self, student, settings):
        config = self.config
        teacher = self._model(
            config.teacher_model_type or config.model_type, name="teacher"
        )
        return learners.MetaPseudoLabels(
            student,
            teacher,
            feedback=config.mpl_feedback,
            pseudo_labels=config.mpl_pseudo_labels,
            uda=self._uda(),
            **settings,
        )

    def _model(self, model_type, *, name):
        config, spec = self.config, self.data.spec
        return models.build(
            model_type,
            input_shape=(spec.image_size, spec.image_size, 3),
            num_classes=spec.num_classes,
            dropout_rate=config.dense_dropout_rate,
            batch_norm_decay=config.batch_norm_decay,
            batch_norm_epsilon=config.batch_norm_epsilon,
            name=name,
        )

    def _uda(self):
        config = self.config
        return learners.UDASettings(
            weight=config.uda_weight,
            ramp_steps=config.uda_steps,
            temperature=config.uda_temp,
            threshold=config.uda_threshold,
            num_train_steps=config.num_train_steps,
        )

    def _schedules(self):
        """One schedule per optimizer: the student's, then the teacher's."""
        config = self.config
        schedule = functools.partial(
            WaitWarmupDecay,
            decay=config.lr_decay_type,
            num_train_steps=config.num_train_steps,
            decay_steps=config.num_decay_steps,
            decay_rate=config.lr_decay_rate,
        )
        scale = functools.partial(
            scale_by_batch, batch_size=config.train_batch_size
        )
        if config.method != "mpl":
            return [
                schedule(scale(config.lr), warmup_steps=config.num_warmup_steps)
            ]
        return [
            schedule(
                scale(config.mpl_student_lr),
                warmup_steps=config.mpl_student_lr_warmup_steps,
                wait_steps=config.mpl_student_lr_wait_steps,
            ),
            schedule(
                scale(config.mpl_teacher_lr),
                warmup_steps=config.mpl_teacher_lr_warmup_steps,
            ),
        ]

    # The stages.

    def train(self):
        """Trains to num_train_steps, from the latest checkpoint on."""
        config, learner = self.config, self.learner
        manager = checkpoint_manager(learner, self.output_dir)
        start = restore_latest(manager) or 0
        if start >= config.num_train_steps:
            return
        dataset = _user_error(
            data.training_dataset,
            self.data,
            batch_size=config.train_batch_size,
            unlabeled_ratio=self._unlabeled_ratio(),
            magnitude=config.augment_magnitude,
            seed=config.seed,
            start_step=start,
        )
        os.makedirs(self.output_dir, exist_ok=True)
        self._write(HPARAMS, config.to_json())
        learner.fit(
            dataset,
            epochs=-(-config.num_train_steps // config.save_every),
            initial_epoch=start // config.save_every,
            steps_per_epoch=config.save_every,
            validation_data=self.test_dataset,
            callbacks=[
                StopAtStep(config.num_train_steps),
                MetricsLogger(self.output_dir, every=config.log_every),
                SaveCheckpoint(manager),
                *self._progress(),
            ],
            shuffle=False,
            verbose=0,
        )

    def finetune(self):
        """Finetunes the trained student on the labeled images."""
        config = self.config
        trained = self.trained_learner().finished_student()
        # A model of its own, so that the learner stays as its checkpoint is.
        student = self._model(config.model_type, name="student")
        student.set_weights(trained.get_weights())
        finetune(
            student,
            data.finetuning_dataset(
                self.data,
                batch_size=min(config.finetune_batch_size, config.num_labeled),
                seed=config.seed,
            ),
            learning_rate=config.finetune_lr,
            steps=config.finetune_steps,
        )
        student.save_weights(self._path("finetuned.weights.h5"))
        self.finetuned = student

    def evaluate(self):
        """Accuracies on the test images, of all networks that there are.

        Returns:
          A dict by network, also written to eval.json: `student` (its moving
          average, where there is one), `student_raw`, `teacher`, `finetuned`.
        """
        learner = self.trained_learner()
        networks = {
            "student": learner,
            "student_raw": learner.student,
            "teacher": getattr(learner, "teacher", None),
            "finetuned": self.finetuned,
        }
        accuracies = {
            name: evaluation.accuracy(network, self.test_dataset)
            for name, network in networks.items()
            if network is not None
        }
        self._write("eval.json", json.dumps(accuracies, indent=2) + "\n")
        return accuracies

    def export(self):
        """Writes the best-trained student there is as a SavedModel.

        Returns:
          The folder of the SavedModel.
        """
        path = self._path("saved_model")
        student = self.finetuned
        if student is None:
            student = self.trained_learner().finished_student()
        _user_error(export_saved_model, student, path, spec=self.data.spec)
        return path

    def trained_learner(self):
        """The learner as its latest checkpoint has it.

        Raises:
          CheckpointError: where there is none.
        """
        require_output_dir(self.config, must_exist=True)
        manager = checkpoint_manager(self.learner, self.output_dir)
        if restore_latest(manager) is None:
            raise CheckpointError(
                f"{self.output_dir} holds no checkpoint: train there first, "
                "with --task_mode=train."
            )
        return self.learner

    def _unlabeled_ratio(self):
        return 0 if self.config.method == "supervised" else self.config.uda_data

    def _progress(self):
        if not (self.config.progress and on_terminal()):
            return []
        return [Progress(self.config.num_train_steps, names=_SHOWN)]

    def _path(self, name):
        return os.path.join(self.output_dir, name)

    def _write(self, name, text):
        """Replaces a file of the run, whole or not at all."""
        scratch = self._path(f".{name}.part")
        with open(scratch, "w") as file:
            file.write(text)
        os.replace(scratch, self._path(name))


def _user_error(function, *args, **kwargs):
    """Calls the library; what it refuses, the user can mend."""
    try:
        return function(*args, **kwargs)
    except ValueError as error:
        raise ConfigError(str(error)) from error
