"""What a run exports: its network in float32, its card, other formats."""

import dataclasses
import importlib.util
import json
import pathlib
import types

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2

from meta_pseudo_labels import data
from meta_pseudo_labels.data.class_distributions import images_digest
from meta_pseudo_labels.evaluation.evaluate import predict_logits
from meta_pseudo_labels.export.card import (
    page,
    revision,
    summary_lines,
)
from meta_pseudo_labels.export.litert import write_litert
from meta_pseudo_labels.export.onnx import write_onnx
from meta_pseudo_labels.learners.build import build_model
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.run.stages.export import (
    export_run,
    plain_student,
    recorded_accuracies,
)
from meta_pseudo_labels.utils.checkpoint_files import weights_digest
from meta_pseudo_labels.utils.settings import ConfigError
from tests.tiny_run import tiny

TESTED = types.SimpleNamespace(
    test_images=np.zeros([1, 2, 2, 3], np.uint8), test_labels=[0]
)
DIGEST = images_digest(TESTED.test_images, TESTED.test_labels)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits", num_labeled=40, seed=0)


@pytest.fixture(scope="module")
def exported(digits, tmp_path_factory):
    """A wide ResNet that was trained in bfloat16: student, folder, card."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "eval.json").write_text('{"student": 0.25, "teacher": 0.125}')
    config = tiny(
        folder,
        model_type="wrn-10-1",
        use_bfloat16=True,
        remat=True,
        export_keras=True,
        export_litert=True,
        label_noise=0.1,
    )
    keras.utils.set_random_seed(0)
    student = build_model(config, digits.spec, role="student")
    # A fresh last layer, near 0, says the same of every image.
    (kernel,) = [w for w in student.weights if len(w.shape) == 2]
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    evaluated = {
        "step": 4,
        "weights": {"student": weights_digest(student)},
        "images_digest": images_digest(digits.test_images, digits.test_labels),
    }
    (folder / "eval_report.json").write_text(json.dumps(evaluated))
    path = export_run(student, config, digits, network="student", step=4)
    assert path == f"{folder}/saved_model/1"
    with open(f"{path}/assets.extra/model_card.json") as file:
        return student, path, json.load(file)


@pytest.fixture(scope="module")
def served(exported, digits):
    """The exported model's probabilities of all test images."""
    model = tf.saved_model.load(exported[1])
    outputs = model.signatures["serving_default"](
        images=tf.constant(digits.test_images)
    )
    probabilities = outputs["probabilities"].numpy()
    assert probabilities.std(axis=0).max() > 0.05  # There is a difference.
    return probabilities


@pytest.mark.long
def test_it_computes_in_float32_what_was_learned_in_bfloat16(
    exported, digits, served
):
    student, path, _ = exported
    assert "bfloat16" in {layer.compute_dtype for layer in student.layers}
    content = pathlib.Path(path, "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    kinds = {
        value.type
        for function in graph.graph_def.library.function
        for node in function.node_def
        for value in node.attr.values()
    }
    assert tf.float32.as_datatype_enum in kinds
    assert tf.bfloat16.as_datatype_enum not in kinds
    plain = plain_student(
        student, tiny("x", model_type="wrn-10-1"), digits.spec
    )
    test = data.evaluation_dataset(
        digits.test_images, digits.test_labels, digits.spec, batch_size=250
    )
    want = tf.nn.softmax(predict_logits(plain, test)[0])
    np.testing.assert_allclose(served, want, rtol=0, atol=1e-5)


def test_the_card_says_where_it_comes_from(exported, digits):
    _, path, card = exported
    assert card["network"] == "student" and card["step"] == 4
    assert card["metrics"] == {"student": 0.25, "teacher": 0.125}
    assert card["data"]["name"] == "digits"
    assert card["data"]["classes"] == list("0123456789")
    assert card["data"]["mean"] == list(digits.spec.mean)
    assert card["labels"]["labeled_images"] == 40
    assert card["labels"]["label_noise"] == 0.1
    assert card["settings"]["model_type"] == "wrn-10-1"
    assert card["versions"]["tensorflow"] == tf.__version__
    assert card["revision"] == revision()
    with open(f"{path}/assets.extra/labels.txt") as file:
        assert file.read().splitlines() == list("0123456789")
    with open(f"{path}/assets.extra/model_card.md") as file:
        text = file.read()
    for line in (
        "- network: student of step 4",
        "- source: digits",
        "- labeled images: 40",
        "- wrong on purpose: 10%",
        "- student: 0.2500",
        "- model_type: wrn-10-1",
    ):
        assert f"{line}\n" in text


def test_accuracies_of_another_step_are_not_the_card_s(tmp_path):
    """Training went on after the evaluation, or it was of another one."""
    model = keras.Sequential([keras.Input([8]), keras.layers.Dense(1)])

    def metrics():
        weights = {"student": weights_digest(model)}
        return recorded_accuracies(RunFolder(tmp_path), 4, weights, TESTED)

    assert metrics() is None
    (tmp_path / "eval.json").write_text('{"student": 0.25}')
    assert metrics() is None  # Nothing says of which step.
    weights = {"student": weights_digest(model)}
    evaluated = {"step": 4, "weights": weights, "images_digest": DIGEST}
    others = {"weights": {"student": "another run's"}}
    for change in (
        {"step": 2},
        {"weights": {}},
        others,
        {"images_digest": "another folder's"},
    ):
        report = evaluated | change
        (tmp_path / "eval_report.json").write_text(json.dumps(report))
        assert metrics() is None
    (tmp_path / "eval_report.json").write_text("{")
    assert metrics() is None
    for report in (evaluated, evaluated | {"images_digest": None}):
        (tmp_path / "eval_report.json").write_text(json.dumps(report))
        assert metrics() == {"student": 0.25}


def test_accuracies_of_an_earlier_finetuning_are_not_the_card_s(tmp_path):
    model = keras.Sequential([keras.Input([8]), keras.layers.Dense(1)])
    (tmp_path / "eval.json").write_text('{"finetuned": 0.25}')
    (tmp_path / "eval_report.json").write_text(
        json.dumps(
            {
                "step": 4,
                "weights": {"finetuned": weights_digest(model)},
                "images_digest": DIGEST,
            }
        )
    )

    def metrics():
        weights = {"finetuned": weights_digest(model)}
        return recorded_accuracies(RunFolder(tmp_path), 4, weights, TESTED)

    assert metrics() == {"finetuned": 0.25}
    model.layers[0].bias.assign([0.5])
    assert metrics() is None


def test_the_page_of_a_run_that_was_not_evaluated(exported):
    card = exported[2] | {"metrics": None, "litert": None, "revision": None}
    assert "- none: `mpl eval` was not run" in page(card)
    card["metrics"] = {"finetuned": {"top_1": 0.5, "classes": ["a"]}}
    assert "- finetuned top_1: 0.5000\n" in page(card)
    assert "- revision: not known\n" in page(card)


@pytest.mark.long
def test_the_keras_file_is_the_student(exported, digits, served):
    model = keras.models.load_model(f"{exported[1]}/assets.extra/student.keras")
    shown = data.normalize(
        digits.test_images, mean=digits.spec.mean, std=digits.spec.std
    )
    found = tf.nn.softmax(model(shown, training=False))
    np.testing.assert_allclose(found, served, rtol=0, atol=1e-5)


def test_the_litert_file_agrees(exported, digits, served):
    litert = exported[2]["litert"]
    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    assert litert["images"] == 500
    assert litert["same_class"] >= 0.99
    assert 0 <= litert["largest_difference"] < 1e-3
    run = interpreter.Interpreter(
        f"{exported[1]}/assets.extra/model.tflite"
    ).get_signature_runner()
    outputs = run(images=digits.test_images[:1])
    np.testing.assert_allclose(outputs["probabilities"], served[:1], atol=1e-3)
    assert "the same class for " in summary_lines(exported[1])[1]


def test_what_was_added_is_said(exported):
    keras_line, litert_line = summary_lines(exported[1])
    extras = f"{exported[1]}/assets.extra"
    assert keras_line == f"Keras: {extras}/student.keras"
    assert litert_line.startswith(f"LiteRT: {extras}/model.tflite, ")


def test_the_onnx_file_agrees(exported, digits, served, tmp_path):
    """The bfloat16 student's float32 copy, of batches of any size."""
    pytest.importorskip("tf2onnx")
    session = pytest.importorskip("onnxruntime").InferenceSession
    config = tiny(tmp_path, model_type="wrn-10-1")
    model = plain_student(exported[0], config, digits.spec)
    found = write_onnx(model, tmp_path, digits)
    assert found["images"] == 500 and found["same_class"] == 1
    assert 0 <= found["largest_difference"] < 1e-5
    run = session(str(tmp_path / "model.onnx")).run
    for images in (digits.test_images[:1], digits.test_images[:7]):
        classes, probabilities = run(
            ["classes", "probabilities"], {"images": images}
        )
        want = served[: len(images)]
        np.testing.assert_allclose(probabilities, want, rtol=0, atol=1e-5)
        assert classes.tolist() == np.argmax(want, -1).tolist()


def test_onnx_without_its_converter_is_refused_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="--export_onnx needs tf2onnx"):
        tiny(tmp_path, task_mode="export", export_onnx=True)


def test_the_card_tells_of_every_format(exported):
    onnx = {"images": None, "why_not": "nobody looked", "file": "model.onnx"}
    card = exported[2] | {"onnx": onnx}
    assert "- ONNX: agreement not measured: nobody looked\n" in page(card)
    assert "- LiteRT: " in page(card)


def test_without_test_images_agreement_is_not_measured(digits, tmp_path):
    model = keras.Sequential(
        [keras.Input([8, 8, 3]), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    untested = dataclasses.replace(
        digits,
        test_images=digits.test_images[:0],
        test_labels=digits.test_labels[:0],
    )
    found = write_litert(model, tmp_path, untested)
    assert found["images"] is None and "no test images" in found["why_not"]
    assert (tmp_path / found["file"]).read_bytes()[4:8] == b"TFL3"
