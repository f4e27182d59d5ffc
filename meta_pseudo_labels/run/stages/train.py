"""The training stage of a run, on whatever devices there are."""

import contextlib
import functools

import tensorflow as tf
from absl import logging

from meta_pseudo_labels import data, models
from meta_pseudo_labels.distribute.strategies import (
    describe,
    is_multi_worker,
    worker_of,
)
from meta_pseudo_labels.learners.callbacks import StopAtStep, position
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.optimizers.schedules import scale_by_batch
from meta_pseudo_labels.run.callbacks import LogAccuracy, SaveCheckpoint
from meta_pseudo_labels.run.checkpoints import Checkpoints
from meta_pseudo_labels.run.closing import closing_summary
from meta_pseudo_labels.run.data import (
    adaptation_images,
    images_per_batch,
    require_unlabeled_images,
    training_batches,
    unlabeled_ratios,
)
from meta_pseudo_labels.run.devices import reports_lost_workers
from meta_pseudo_labels.run.epochs import fit_epochs
from meta_pseudo_labels.run.folder import (
    DONE,
    HPARAMS,
    LABELED,
    MACHINE,
    PLUGINS,
    TEACHER_LABELS,
    WEIGHTS,
    RunFolder,
    resets,
)
from meta_pseudo_labels.run.labeled_choice import (
    check_choice_of_labels,
    save_choice_of_labels,
)
from meta_pseudo_labels.run.metrics_log import MetricsLogger
from meta_pseudo_labels.run.pretrained import load_first_weights, save_reports
from meta_pseudo_labels.run.progress import progress
from meta_pseudo_labels.run.provenance import (
    plugin_sources,
    save_machine,
    save_plugin_sources,
)
from meta_pseudo_labels.run.restoring import learner_state, restore_start
from meta_pseudo_labels.run.stages import STAGES, RunFile, Stage
from meta_pseudo_labels.run.stopping import (
    StopAfterBadSteps,
    StopOnSignal,
    watch_signals,
)
from meta_pseudo_labels.run.teacher_labels import (
    check_teacher_labels,
    load_teacher_labels,
    save_teacher_labels,
)
from meta_pseudo_labels.utils.checkpoint_files import (
    BEST_FOLDER,
    FOLDER,
    CheckpointError,
)
from meta_pseudo_labels.utils.files import locked, reports_full_disk
from meta_pseudo_labels.utils.settings import ConfigError


@STAGES.register("train")
class Train(Stage):
    help = "Train up to --num_train_steps, from the latest checkpoint on."
    trains = True
    needs_run = False
    files = (
        RunFile(HPARAMS, "every setting"),
        RunFile(MACHINE, "what it ran on"),
        RunFile(PLUGINS, "hashes of the source of its plug-ins"),
        RunFile(LABELED, "which images keep their labels", early=True),
        RunFile(TEACHER_LABELS, "whose labels it learns from", early=True),
        RunFile(WEIGHTS, "which weights it started from", early=True),
        RunFile(FOLDER, "the learner, every `save_every` steps", shown=True),
        RunFile(
            BEST_FOLDER,
            "the best one on the held-out images",
            shown=True,
        ),
        RunFile(
            "metrics.jsonl", "the logged steps and evaluations", shown=True
        ),
        RunFile("events", "the same for TensorBoard", shown=True),
        RunFile("callbacks", "what callbacks of users keep, such as ids"),
        RunFile(DONE, "says that training reached its last step"),
    )
    next = "finetune"

    @staticmethod
    def run(experiment):
        print(f"Devices: {experiment.devices()}", flush=True)
        print(peak_rates(experiment.config), flush=True)
        done = "Trained" if experiment.train() else "Already trained"
        print(f"{done}: {experiment.output_dir}")
        print(closing_summary(experiment))


def peak_rates(config):
    """The peak learning rates at this batch size, for a terminal."""
    rates = LEARNERS[config.method].rates(config)
    names = [""]
    if len(rates) > 1:  # A custom method may have more.
        names = ["student", "teacher", *map(str, range(3, len(rates) + 1))]
    told = ", ".join(
        f"{name} {scale_by_batch(rate.peak, config.train_batch_size):.3g} "
        f"({rate.peak:g} per 256 images)".lstrip()
        for name, rate in zip(names, rates, strict=False)
    )
    return f"Peak learning rate at a batch of {config.train_batch_size}: {told}"


def train(learner, config, images, *, validation, callbacks=()):
    """Trains up to num_train_steps, from the latest checkpoint on.

    If there are several workers, each calls it; only the first one writes.

    Args:
      learner: the compiled `Learner`, built in the scope of its strategy.
      config: `Config`.
      images: `data.ImageData` or `data.ShardedData`.
      validation: data set to evaluate on after every save_every steps, or None.
      callbacks: further Keras callbacks, which come after the run's own.

    Returns:
      Whether there was anything left to do.

    Raises:
      CheckpointError, ConfigError: before any step, if the run cannot start
        or resume. Also if there is no room to write.
      Interrupted: by SIGTERM or Ctrl-C, or if another worker is gone; the run
        can be resumed.
      Diverged: if stop_after_bad_steps updates in a row were not finite.
    """
    writes = worker_of(learner.distribute_strategy) == 0
    with contextlib.ExitStack() as stack:
        if writes:
            stack.enter_context(reports_full_disk(config.output_dir))
            stack.enter_context(locked(config.output_dir))
        stack.enter_context(
            reports_lost_workers(learner.distribute_strategy, config)
        )
        checkpoints = Checkpoints(
            learner_state(learner),
            config.output_dir,
            max_to_keep=config.max_to_keep,
        )
        # Before the lock is released, however training ends.
        stack.callback(checkpoints.close)
        return _train(
            learner, config, images, validation, callbacks, checkpoints, writes
        )


def _train(learner, config, images, validation, callbacks, checkpoints, writes):
    folder = RunFolder(config.output_dir)
    fresh = resets(config) and learner.step.numpy() == 0
    if not fresh:
        check_choice_of_labels(config, images, trains=True)
    begins = fresh or not checkpoints.paths()
    names = images.spec.class_names
    start = restore_start(
        learner, config, checkpoints, fresh=fresh, class_names=names
    )
    _check_same_start(learner.distribute_strategy, start)
    if start >= config.num_train_steps:
        check_teacher_labels(config, images)
        if writes and checkpoints.paths() and not folder.is_done():
            # A kill came right after the last checkpoint.
            folder.mark_done(config.num_train_steps)
        return False
    _check_steps_per_execution(config, position(learner))
    require_unlabeled_images(config, images)
    reports = load_first_weights(learner, config, names) if begins else {}
    distributions = load_teacher_labels(config, images, fresh=fresh)
    batches = functools.lru_cache(maxsize=1)(
        functools.partial(_batches, learner, config, images, distributions)
    )
    batches(position(learner))  # Errors in them show before anything else.
    if writes:
        plugins, changed = plugin_sources(
            folder, start, config.plugins, begins=begins
        )
        if fresh:  # Only now that everything else is known to be in order.
            folder.reset()
        folder.mark_not_done()
        save_choice_of_labels(config, images)
        save_teacher_labels(config, distributions)
        save_reports(config.output_dir, reports)
        folder.save_settings(config)
        save_machine(folder, describe(learner.distribute_strategy))
        save_plugin_sources(folder, plugins)
        _warn_of_changed(changed, config)
    _adapt(learner, images)
    with watch_signals() as signals:
        ours = _callbacks(
            config,
            checkpoints if writes else None,
            signals,
            _judge(images, config),
        )
        with reports_lost_workers(learner.distribute_strategy, config, signals):
            _fit(learner, config, batches, validation, [*ours, *callbacks])
        if writes:
            checkpoints.wait()
            folder.mark_done(config.num_train_steps)
    return True


def _warn_of_changed(plugins, config):
    for name in plugins:
        logging.warning(
            "--plugin=%s is not what the run in %s was trained with so far: "
            "its source changed. The run continues with the new one. To get a "
            "result of one version only, undo the change, or start over with "
            "--reset_output_dir.",
            name,
            config.output_dir,
        )


def _adapt(learner, images):
    """Adapts networks that need it, unless a checkpoint has them adapted."""
    networks = [network for _, network in learner.optimized()]
    todo = [network for network in networks if not models.is_adapted(network)]
    if not todo:
        return
    seen = adaptation_images(images)
    with learner.distribute_strategy.scope():
        for network in todo:
            models.adapt(network, seen)
            if learner.student_ema and network is learner.student:
                learner.student_ema.reset(network)


def _check_steps_per_execution(config, start):
    """Refuses to resume in the middle of what would be one execution."""
    if start % config.steps_per_execution:
        raise ConfigError(
            f"The run in {config.output_dir} resumes at step {start}, which is "
            "not a multiple of --steps_per_execution="
            f"{config.steps_per_execution}; use --steps_per_execution=1."
        )


def _batches(learner, config, images, distributions, start):
    """The batches from a step on, split over the replicas."""
    batches = functools.partial(
        training_batches,
        config,
        images,
        start_step=start,
        distributions=distributions,
    )
    strategy = learner.distribute_strategy
    if strategy.num_replicas_in_sync == 1:
        return batches()
    return data.distribute(strategy, lambda share: batches(share=share))


def _judge(images, config):
    """What training evaluates on: the name, and the number of images."""
    by_test = config.best_on == "test" or not config.num_validation
    part = "test" if by_test else "validation"
    return part, len(getattr(images, f"{part}_images"))


def _callbacks(config, checkpoints, signals, judge):
    """The callbacks beside the steps, in the order in which they run.

    Args:
      checkpoints: `Checkpoints`; None on workers that write nothing.
      signals: see `watch_signals`.
      judge: see `_judge`.
    """
    bad_steps = StopAfterBadSteps(config.stop_after_bad_steps)
    stop_at_step = StopAtStep(config.num_train_steps)
    stop_on_signal = functools.partial(
        StopOnSignal, signals, every=config.save_every
    )
    if checkpoints is None:
        return [stop_at_step, bad_steps, stop_on_signal()]
    save = SaveCheckpoint(
        checkpoints,
        bad_steps=bad_steps,
        # The test images choose nothing unless they are asked to.
        best_by="val_accuracy"
        if config.num_validation or config.best_on == "test"
        else None,
    )
    return [
        stop_at_step,
        MetricsLogger(
            config.output_dir,
            every=config.log_every,
            batch_images=functools.partial(images_per_batch, config),
        ),
        *progress(
            config.num_train_steps,
            config,
            judge=judge,
            again="compiling the step again when the unlabeled batch grows"
            if len(unlabeled_ratios(config)) > 1
            else None,
        ),
        bad_steps,
        save,
        stop_on_signal(saving=save),
    ]


def _fit(learner, config, batches, validation, callbacks):
    """Fits epochs of save_every batches to the end."""
    alone = not is_multi_worker(learner.distribute_strategy)
    if not alone and worker_of(learner.distribute_strategy) == 0:
        if validation is not None:
            callbacks = [LogAccuracy(validation), *callbacks]
    grows = [start for start in unlabeled_ratios(config) if start]
    if grows and grows[-1] >= config.num_train_steps:
        logging.warning(
            "--uda_data_growth_steps=%d: the unlabeled batch reaches "
            "--uda_data=%d only at step %d, when the run has ended.",
            config.uda_data_growth_steps,
            config.uda_data,
            grows[-1],
        )
    fit_epochs(
        learner,
        batches,
        every=config.save_every,
        ends=[start // config.save_every for start in grows],
        validation_data=validation if alone else None,
        callbacks=callbacks,
    )


def _check_same_start(strategy, start):
    """Refuses workers that resume from different checkpoints."""
    if not is_multi_worker(strategy):
        return

    @tf.function(autograph=False)
    def gather():
        own = strategy.run(lambda: tf.constant([start], tf.int64))
        return strategy.gather(own, axis=0)

    starts = gather().numpy()
    if len(set(starts)) > 1:
        raise CheckpointError(
            "The workers found checkpoints of different steps, "
            f"{', '.join(map(str, starts))}: --output_dir must be one folder "
            "that all of them share."
        )
