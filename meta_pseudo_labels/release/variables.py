"""The release's variables and ours: one dictionary, both ways.

The release names the student `model/<scope>/...`, the teacher
`teacher/<scope>/...`, the student's moving averages `ema/model/<scope>/...`, an
optimizer's slots after the weight that they belong to, and the rest plainly:
`global_step`, `moving_dot_product`. The scope is the network's name.
"""

import os

import keras
import numpy as np
import tensorflow as tf

from meta_pseudo_labels.models import release_scope, release_variable_name
from meta_pseudo_labels.release.load_report import LoadReport
from meta_pseudo_labels.release.variable_sources import open_source
from meta_pseudo_labels.utils.checkpoint_files import CheckpointError

# Of MPL; written by every step before it is read, so there is nothing to keep.
OVERWRITTEN = "cross_entropy_old"


def release_variables(learner, *, scope, teacher_scope=None):
    """Every variable of a learner that the release has too.

    Only ours has states of random seeds. Without `ema_decay` there are no
    averages, while the release has copies of the student.

    Args:
      learner: a compiled `Learner`.
      scope: of the student, such as "wrn-28-2"; see `models.release_scope`.
      teacher_scope: of the teacher; by default the student's.

    Returns:
      A dict from release name to our variable.
    """
    student = network_variables(learner.student, f"model/{scope}")
    variables = dict(student)
    average = learner.student_ema
    if average is not None:
        averages = zip(student, average.averages, strict=True)
        variables |= {f"ema/{name}": value for name, value in averages}
    networks = [(learner.student, student, learner.optimizer)]
    if hasattr(learner, "teacher"):
        prefix = f"teacher/{teacher_scope or scope}"
        teacher = network_variables(learner.teacher, prefix)
        networks.append((learner.teacher, teacher, learner.teacher_optimizer))
        variables |= teacher
        variables["moving_dot_product"] = learner.baseline.average
    for network, named, optimizer in networks:
        variables |= _slots(network, named, optimizer)
    variables["global_step"] = learner.step
    return variables


def network_variables(model, prefix):
    """Weights and moments of a network by release name, under a prefix."""
    return {
        f"{prefix}/{release_variable_name(*v.path.rsplit('/', 1))}": v
        for v in model.variables
        if "float" in v.dtype
    }


def _slots(network, named, optimizer):
    """An optimizer's slots by release name; none for Keras's optimizers."""
    names = {id(variable): name for name, variable in named.items()}
    return {
        f"{names[id(variable)]}/{slot_name}": slot
        for slot_name, slots in getattr(optimizer, "release_slots", {}).items()
        for variable, slot in zip(
            network.trainable_variables, slots, strict=True
        )
    }


def load_release_variables(
    target,
    source,
    *,
    prefix="model",
    restart_global_step=False,
    skip_mismatched=False,
):
    """Sets variables of ours to those of the release.

    The student's weights and moments must be there. Anything else that the
    source lacks keeps its value, except the student's averages: if missing,
    they start at the weights that were read.

    Args:
      target: a compiled `Learner`, or a network alone, `keras.Model`.
      source: a dict from release name to array; or the path of a TF1
        checkpoint, "folder/ckpt-1000", or of the folder, for its latest.
      prefix: where a network alone is found: "model", "teacher" or
        "ema/model".
      restart_global_step: whether to count steps from 0 whatever the source
        says (release `--load_checkpoint_and_restart_global_step`).
      skip_mismatched: whether to leave out variables of another shape, such as
        a last layer for other classes, instead of refusing them.

    Returns:
      A `LoadReport`: what matched, what was missing or left over, and which
      shapes disagree.

    Raises:
      CheckpointError: if the source cannot be read, lacks a variable of the
        network, or shapes disagree. Then nothing has been changed.
    """
    source = open_source(source)
    if isinstance(target, keras.Model) and not hasattr(target, "student"):
        ours = network_variables(target, f"{prefix}/{_scope(source, prefix)}")
        required = set(ours)
    else:
        scope = _scope(source, "model")
        required = set(network_variables(target.student, f"model/{scope}"))
        teacher_scope = _scope(source, "teacher", default=scope)
        ours = release_variables(
            target, scope=scope, teacher_scope=teacher_scope
        )
    report = _compare(ours, source)
    report.check(
        source.name, required=required, skip_mismatched=skip_mismatched
    )
    values = {name: source.read(name) for name in report.matched}
    for name, value in values.items():
        ours[name].assign(value.astype(ours[name].dtype))
    if hasattr(target, "student"):
        _settle(target, report, restart_global_step)
    return report


def _scope(source, prefix, default="..."):
    """The scope that the source has under a prefix."""
    start = f"{prefix}/"
    scopes = {
        name[len(start) :].split("/")[0]
        for name in source.shapes
        if name.startswith(start)
    }
    if len(scopes) > 1:
        raise CheckpointError(
            f"{source.name} holds several networks under {prefix}: "
            f"{', '.join(sorted(scopes))}. Pass a dict with one of them."
        )
    return next(iter(scopes), default)


def _compare(ours, source):
    common = [name for name in ours if name in source.shapes]
    shapes = {name: tuple(ours[name].shape) for name in common}
    return LoadReport(
        matched=tuple(n for n in common if source.shapes[n] == shapes[n]),
        missing=tuple(name for name in ours if name not in source.shapes),
        left_over=tuple(
            name
            for name in source.shapes
            if name not in ours and name != OVERWRITTEN
        ),
        mismatched=tuple(
            (name, source.shapes[name], shapes[name])
            for name in common
            if source.shapes[name] != shapes[name]
        ),
    )


def _settle(learner, report, restart_global_step):
    """Sets what follows from the variables that were read."""
    averages_read = any(name.startswith("ema/") for name in report.matched)
    if learner.student_ema is not None and not averages_read:
        learner.student_ema.reset(learner.student)
    learner.answer_with_average()
    learner.set_step(0 if restart_global_step else learner.step)


def save_release_checkpoint(
    learner, path, *, model_type, teacher_model_type=None
):
    """Writes a learner as a TF1 checkpoint under the release's names.

    Args:
      learner: a compiled `Learner`.
      path: of the checkpoint, without extension, such as "folder/ckpt-1000".
        Folders are created; a checkpoint of that name is replaced.
      model_type, teacher_model_type: names of the networks, see
        `models.build`; the teacher's is by default the student's.

    Returns:
      The names that were written.
    """
    variables = release_variables(
        learner,
        scope=release_scope(model_type),
        teacher_scope=release_scope(teacher_model_type or model_type),
    )
    arrays = {name: v.numpy() for name, v in variables.items()}
    if hasattr(learner, "teacher"):
        arrays[OVERWRITTEN] = np.zeros([], np.float32)
    path = os.fspath(path)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    tf.raw_ops.SaveV2(
        prefix=path,
        tensor_names=list(arrays),
        shape_and_slices=[""] * len(arrays),
        tensors=list(arrays.values()),
    )
    return tuple(arrays)
