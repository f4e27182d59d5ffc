"""What run.py times in TensorFlow, and how much work that is."""

import functools

import tensorflow as tf

from benchmarks.common.flops import forward_flops, mpl_step_flops
from meta_pseudo_labels import models
from meta_pseudo_labels.learners import UDA, MetaPseudoLabels, UDASettings
from meta_pseudo_labels.learners.feedback import ESTIMATORS
from meta_pseudo_labels.optimizers import Momentum

FEEDBACKS = tuple(ESTIMATORS)
PARTS = (
    "teacher forward and backward",
    "student forward and backward",
    "student forward",
)
NUM_CLASSES = 10
# Steps of a teacher alone; the others are compared with the first.
TEACHER = ("UDA", "waiting", "UDA, weak views apart")
# Variants of the step in PyTorch: changed settings of torch_step.py.
TORCH = {
    "PyTorch": {},
    "PyTorch, channels last": {"channels_last": True},
    "PyTorch, channels last, compiled": {
        "channels_last": True,
        "compiled": True,
    },
}
# Added by --bfloat16: ours under mixed_bfloat16, theirs under autocast.
IN_BFLOAT16 = ", bfloat16"
BFLOAT16 = tuple(f"{name}{IN_BFLOAT16}" for name in ("release", "exact", "off"))
TORCH_BFLOAT16 = {
    f"{name}{IN_BFLOAT16}": changes | {"bfloat16": True}
    for name, changes in TORCH.items()
}
MATMUL = "matmul"
MATMUL_SIZE = 2048  # Rows and columns of both matrices.

# The release's settings for CIFAR-10; torch_step.py uses them too.
RECIPE = {
    "learning_rate": 0.05,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "grad_bound": 5.0,
    "label_smoothing": 0.15,
    "ema_decay": 0.995,
    "uda_weight": 8.0,
    "uda_ramp_steps": 5000,
    "uda_temperature": 0.7,
    "uda_threshold": 0.6,
    "baseline_decay": 0.99,
}

# Compiles a train step as `fit` does.
compiled = functools.partial(tf.function, autograph=False)


def random_batch(settings):
    """One constant batch for `MetaPseudoLabels.train_step`."""
    size, unlabeled = (
        settings.batch_size,
        settings.batch_size * settings.unlabeled_ratio,
    )

    def images(count):
        return tf.random.normal(
            [count, settings.image_size, settings.image_size, 3]
        )

    return {
        "labeled": images(size),
        "labels": tf.random.uniform([size], maxval=NUM_CLASSES, dtype=tf.int32),
        "weak": images(unlabeled),
        "strong": images(unlabeled),
    }


def build_model(settings, *, name, dtype="float32"):
    model = models.build(
        settings.model,
        input_shape=(settings.image_size, settings.image_size, 3),
        num_classes=NUM_CLASSES,
        name=name,
        dtype=dtype,
    )
    remat = getattr(settings, "remat", False)
    return models.rematerialized(model) if remat else model


def bare_parts(settings, batch):
    """{name: compiled function} of the passes that every step needs."""
    teacher = build_model(settings, name="teacher")
    student = build_model(settings, name="student")
    views = tf.concat([batch["labeled"], batch["weak"], batch["strong"]], 0)
    student_views = tf.concat([batch["strong"], batch["labeled"]], 0)
    functions = (
        forward_and_backward(teacher, views),
        forward_and_backward(student, student_views),
        compiled(lambda: student(batch["labeled"], training=True)),
    )
    return dict(zip(PARTS, functions, strict=True))


def forward_and_backward(model, images):
    """Compiled gradients of the plainest possible cross-entropy."""
    labels = tf.zeros([len(images)], tf.int32)

    @compiled
    def run():
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(
                tf.nn.sparse_softmax_cross_entropy_with_logits(
                    labels=labels, logits=model(images, training=True)
                )
            )
        return tape.gradient(loss, model.trainable_variables)

    return run


def build_learner(
    settings,
    *,
    feedback,
    student_wait_steps=0,
    dtype="float32",
    **compile_arguments,
):
    """A compiled `MetaPseudoLabels` with the numbers of `RECIPE`."""
    learner = MetaPseudoLabels(
        student=build_model(settings, name="student", dtype=dtype),
        teacher=build_model(settings, name="teacher", dtype=dtype),
        feedback=feedback,
        label_smoothing=RECIPE["label_smoothing"],
        ema_decay=RECIPE["ema_decay"],
        baseline_decay=RECIPE["baseline_decay"],
        uda=_consistency(),
        student_wait_steps=student_wait_steps,
    )
    return _compiled(learner, networks=2, **compile_arguments)


def teacher_steps(settings, batch):
    """{name in `TEACHER`: compiled step}; no network has an average."""
    learners = [
        UDA(
            build_model(settings, name="student"),
            uda=_consistency(),
            weak_pass=weak_pass,
            label_smoothing=RECIPE["label_smoothing"],
        )
        for weak_pass in ("joint", "apart")
    ]
    uda, apart = (_compiled(learner, networks=1) for learner in learners)
    waiting = build_learner(
        settings, feedback="exact", student_wait_steps=2**40
    )
    steps = (whole_step(learner, batch) for learner in (uda, waiting, apart))
    return dict(zip(TEACHER, steps, strict=True))


def _consistency():
    names = ("weight", "ramp_steps", "temperature", "threshold")
    return UDASettings(**{name: RECIPE[f"uda_{name}"] for name in names})


def _compiled(learner, *, networks, **compile_arguments):
    optimizers = [
        Momentum(
            RECIPE["learning_rate"], momentum=RECIPE["momentum"], nesterov=True
        )
        for _ in range(networks)
    ]
    learner.compile(
        *optimizers,
        weight_decay=RECIPE["weight_decay"],
        grad_bound=RECIPE["grad_bound"],
        **compile_arguments,
    )
    return learner


def whole_step(learner, batch):
    """The compiled training step."""
    return compiled(lambda: learner.train_step(batch))


def matmul():
    """The compiled product of two large matrices: the processor's limit."""
    left, right = (tf.random.normal([MATMUL_SIZE] * 2) for _ in range(2))
    return compiled(lambda: tf.matmul(left, right))


def flops(settings):
    """{variant: floating-point operations}; see flops.py for what counts."""
    labeled = settings.batch_size
    unlabeled = labeled * settings.unlabeled_ratio
    forward = forward_flops(build_model(settings, name="counted"))
    passes = (3 * (labeled + 2 * unlabeled), 3 * (unlabeled + labeled), labeled)
    parts = [count * forward for count in passes]
    steps = {
        feedback: mpl_step_flops(
            teacher=forward,
            student=forward,
            batch_size=settings.batch_size,
            unlabeled_ratio=settings.unlabeled_ratio,
            feedback=feedback,
        )
        for feedback in FEEDBACKS
    }
    return {
        MATMUL: 2 * MATMUL_SIZE**3,
        **dict(zip(PARTS, parts, strict=True)),
        **steps,
        **{name: steps[name.removesuffix(IN_BFLOAT16)] for name in BFLOAT16},
        **dict.fromkeys((*TORCH, *TORCH_BFLOAT16), sum(parts)),
        **dict.fromkeys(TEACHER, parts[0]),
        TEACHER[-1]: (3 * (labeled + unlabeled) + unlabeled) * forward,
    }
