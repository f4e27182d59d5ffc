"""No train step holds what XLA refuses on a TPU, or calls back to the host.

The traced graph of a step is walked, with every function that it calls. Its
operations are compared with TensorFlow's own list: the kernels that it has for
XLA, those for processors and for GPUs alike, and so for no device in
particular. TensorFlow for processors knows no kernels that are for TPUs alone.
Then the program that XLA is given is searched for what is not a computation.
"""

import functools
import re

import keras
import pytest
import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels

from meta_pseudo_labels.learners.feedback import exact
from meta_pseudo_labels.optimizers import LARS, Momentum, RMSProp
from tests.learners.float32_learners import (
    BUILDERS,
    batches,
    build_learner,
    meta,
)

# Of `kTpuAllTypes` in tensorflow/core/tpu/tpu_defs.h those that a step may use.
TPU_TYPES = {
    *("DT_FLOAT", "DT_BFLOAT16", "DT_BOOL", "DT_UINT8", "DT_UINT32"),
    *("DT_INT32", "DT_INT64", "DT_UINT64"),
    "DT_RESOURCE",  # A variable.
}
# XLA leaves out an Assert and its text, so a TPU does not check the labels.
ASSERTS = ("Assert", "Const")
# Of its outputs the last one is there for GPUs alone, and empty elsewhere.
OUTPUTS = {"FusedBatchNormV3": 5}
# What a program names that is no computation: what another device would have to
# know or the host to do, and shapes such as f32[<=4,3] that values decide.
NOT_COMPUTED = re.compile(
    r"\b(?:custom-call|infeed|outfeed|send|recv|\w+\[[^\]]*<=)"
)


@functools.cache
def xla_operations():
    """The types of operations that XLA has a kernel for on every device."""
    # They are registered where XLA is used first.
    tf.function(lambda: tf.zeros([]) + 1.0, jit_compile=True)()
    found = {"XLA_CPU_JIT": set(), "XLA_GPU_JIT": set()}
    for kernel in kernels.get_all_registered_kernels().kernel:
        found.get(kernel.device_type, set()).add(kernel.op)
    return set.intersection(*found.values())


def refused(graph):
    """What a TPU refuses of a `tf.Graph`, and why: a set of texts."""
    definition = graph.as_graph_def(add_shapes=True)
    functions = {f.signature.name: f for f in definition.library.function}
    # Arguments of the step are placeholders.
    known = xla_operations() | {"Placeholder", *functions}
    nodes = [*definition.node]
    for function in functions.values():
        nodes += function.node_def
    found = {f"{node.op}: no kernel" for node in nodes if node.op not in known}
    for node in nodes:
        names = {types_pb2.DataType.Name(number) for number in _types(node)}
        if node.op in ASSERTS:
            names.discard("DT_STRING")
        found |= {f"{node.op}: {name}" for name in names - TPU_TYPES}
    # A branch may have the axis of a concatenation from outside, and its shape
    # is unknown here, not to XLA; what remains of branches is seen there.
    for node in definition.node:
        shapes = node.attr["_output_shapes"].list.shape
        for shape in shapes[: OUTPUTS.get(node.op)]:
            if shape.unknown_rank or any(size.size < 0 for size in shape.dim):
                found.add(f"{node.op}: unknown shape")
    return found


def _types(node):
    for value in node.attr.values():
        kind = value.WhichOneof("value")
        if kind == "type":
            yield value.type
        elif kind == "list":
            yield from value.list.type


def traced(name, *, optimizer=Momentum, batch_slices=1, **settings):
    """The train step of a learner, compiled by XLA where it is called."""
    learner = build_learner(name, **settings)
    learner.compile(
        optimizer(0.1),
        weight_decay=0.01,
        grad_bound=0.5,
        batch_slices=batch_slices,
    )
    step = tf.function(
        lambda batch: learner.train_step(batch),
        autograph=False,
        jit_compile=True,
    )
    return step, next(iter(batches(name, steps=1)))


def check(*arguments, **settings):
    step, batch = traced(*arguments, **settings)
    graph = step.get_concrete_function(batch).graph
    assert len(graph.get_operations()) > 100
    assert not refused(graph)
    # Logs are float32 whatever the network computes in.
    assert {log.dtype for log in graph.structured_outputs.values()} == {
        tf.float32
    }
    program = step.experimental_get_compiler_ir(batch)(stage="hlo")
    assert "ENTRY" in program
    assert not NOT_COMPUTED.findall(program)


@pytest.mark.fast("exact")
@pytest.mark.parametrize("name", BUILDERS)
def test_no_step_holds_what_a_tpu_refuses(name):
    check(name)


@pytest.mark.long
@pytest.mark.parametrize("optimizer", [RMSProp, LARS, keras.optimizers.SGD])
def test_no_optimizer_does(optimizer):
    check("exact", optimizer=optimizer)


@pytest.mark.long
@pytest.mark.parametrize(
    "network",
    ["wrn-10-1", "efficientnet"],
)
def test_no_network_does_in_bfloat16(network):
    check("exact", network=network, dtype="mixed_bfloat16")


@pytest.mark.long
@pytest.mark.parametrize("name", ["uda", "exact"])
def test_no_slice_of_a_batch_does(name):
    check(name, batch_slices=2)


def with_estimator(spoil):
    """Meta Pseudo Labels whose estimator does something more."""

    def estimator(student_step, teacher_logits):
        spoil(teacher_logits)
        return exact(student_step, teacher_logits)

    estimator.__name__ = "spoiled"
    return meta(estimator, pseudo_labels="soft")


@pytest.mark.fast("<lambda>-EagerPyFunc: no kernel")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (
            lambda x: tf.py_function(lambda y: y, [x], tf.float32),
            "EagerPyFunc: no kernel",
        ),
        (
            lambda x: tf.numpy_function(abs, [x], tf.float32),
            "PyFunc: no kernel",
        ),
        (tf.print, "PrintV2: no kernel"),
        (lambda x: tf.strings.as_string(x), "AsString: no kernel"),
        (lambda x: tf.where(x > 0), "Where: unknown shape"),
        (lambda x: tf.unique(x[:, 0]), "Unique: unknown shape"),
        (lambda x: tf.cast(x, tf.complex128), "Cast: DT_COMPLEX128"),
        (
            lambda x: next(iter(tf.data.Dataset.range(3))),
            "IteratorGetNext: no kernel",
        ),
    ],
)
def test_what_a_tpu_refuses_is_found(spoil, why):
    step, batch = traced(with_estimator(spoil))
    assert why in refused(step.get_concrete_function(batch).graph)


def test_what_is_refused_in_a_branch_is_found():
    @tf.function
    def step(x):
        return tf.cond(
            x > 0,
            lambda: tf.py_function(lambda y: y, [x], tf.float32),
            lambda: x,
        )

    graph = step.get_concrete_function(tf.TensorSpec([])).graph
    assert refused(graph) >= {"EagerPyFunc: no kernel"}


def test_shapes_that_depend_on_values_are_found_in_a_program():
    step = tf.function(lambda x: tf.where(x > 0), jit_compile=True)
    program = step.experimental_get_compiler_ir(tf.ones([4]))(stage="hlo")
    assert "s64[<=" in NOT_COMPUTED.findall(program)
