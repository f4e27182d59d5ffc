"""The learners against the release: its own runs, replayed step by step."""

import json

import numpy as np
import pytest
import tensorflow as tf

from meta_pseudo_labels.release import replay

TRACES = ("supervised_wrn28_1", "uda_wrn28_1", "mpl_wrn28_1")
STEPS = 12


def largest_error(actual, desired):
    """Relative to max(1, |desired|), as the reference measures it."""
    assert actual.shape == desired.shape
    return np.max(
        np.abs(actual - desired) / np.maximum(1.0, np.abs(desired)), initial=0
    )


def errors(results, trace, start, *, against=None, steps=slice(None)):
    """The largest error of everything whose name begins with `start`.

    `against` is what the trace calls it, where that is something else.
    """
    against = against or start
    names = [n[len(against) :] for n in trace if n.startswith(against)]
    assert len(names) >= 5, f"The trace has no {against}."
    return {
        name: largest_error(
            np.atleast_1d(results[start + name])[steps],
            np.atleast_1d(trace[against + name])[steps],
        )
        for name in names
    }


def assert_within(found, tolerance):
    # Not >, which no NaN is.
    bad = {n: error for n, error in found.items() if not error <= tolerance}
    assert not bad


def read(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.fast("mpl_wrn28_1")
@pytest.mark.parametrize("name", [*TRACES, "mpl_wrn28_1_mdp0"])
def test_float64_repeats_the_release(reference_dir, name):
    path = reference_dir / f"{name}.npz"
    trace, results = read(path), replay(path, "float64")
    assert_within(errors(results, trace, "log/", against="log64/"), 1e-6)
    assert_within(errors(results, trace, "final/"), 1e-5)
    # Logits of up to 10, which the release computed in float32.
    del trace["eval/images"]
    assert_within(errors(results, trace, "eval/"), 5e-5)
    assert_norms_agree(results, trace)


def assert_norms_agree(results, trace):
    """Against the only float64 record of the variables, their norms."""
    names = [str(name) for name in trace["var_names"]]
    for name, norm in zip(names, trace["step_l2_f64"][-1], strict=True):
        ours = np.linalg.norm(results[f"final/{name}"].astype(np.float64))
        # Relative, but beta starts at 0 and the largest norms are above 10.
        assert abs(ours - norm) <= 1e-6 * max(1.0, norm), name


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.long
def test_float32_repeats_the_release(reference_dir, name):
    path = reference_dir / f"{name}.npz"
    trace, results = read(path), replay(path, "float32")
    first = errors(results, trace, "log/", steps=slice(6))
    assert_within(first, 1e-4)
    assert_within(errors(results, trace, "log/"), 1e-3)
    assert_within(errors(results, trace, "final/"), 1e-3)
    assert results["log/global_step"].dtype == np.float32


@pytest.mark.parametrize("name", TRACES)
@pytest.mark.long
def test_float32_left_to_itself_repeats_the_first_steps(
    reference_dir, tmp_path, name
):
    """How many more is a matter of luck: see `replay`."""
    trace = read(reference_dir / f"{name}.npz")
    short = tmp_path / "short.npz"
    np.savez(short, **with_steps(trace, 3))
    results = replay(short, "float32", free_running=True)
    assert len(results["log/global_step"]) == 3
    assert_within(errors(results, trace, "log/", steps=slice(3)), 1e-4)


def with_steps(trace, steps):
    return {
        name: value[:steps] if name.startswith(("input/", "log")) else value
        for name, value in trace.items()
    }


class TestOtherSettings:
    """A trace of other sizes; what must hold, the release's rules say."""

    @pytest.fixture
    def trace(self, reference_dir):
        """12 images of 10x10 in 7 classes, SGD, exponential decay, no EMA."""
        source = read(reference_dir / "supervised_wrn28_1.npz")
        rng = np.random.default_rng(3)
        hparams = json.loads(str(source["hparams_json"])) | dict(
            num_classes=7,
            image_size=10,
            train_batch_size=4,
            optim_type="sgd",
            lr_decay_type="exponential",
            lr_decay_rate=0.5,
            num_decay_steps=1,
            num_warmup_steps=2,
            lr=1.28,
            ema_decay=0.0,
        )
        trace = {n: v for n, v in source.items() if n.startswith("init/")}
        dense = "init/model/wrn-28-1/head/dense"
        trace[f"{dense}/kernel"] = trace[f"{dense}/kernel"][:, :7]
        trace[f"{dense}/bias"] = trace[f"{dense}/bias"][:7]
        labels = rng.integers(0, 7, size=(3, 4))
        return trace | {
            "hparams_json": np.array(json.dumps(hparams)),
            "input/l_images": rng.normal(size=(3, 4, 10, 10, 3)),
            "input/l_labels": np.eye(7, dtype=np.float32)[labels],
        }

    def replayed(self, trace, tmp_path, **settings):
        path = tmp_path / "trace.npz"
        np.savez(path, **trace)
        return replay(path, "float64", **settings)

    @pytest.mark.long
    def test_sizes_and_schedule_are_those_of_the_trace(self, trace, tmp_path):
        results = self.replayed(trace, tmp_path)
        # Peak 1.28 * 4 / 256 = 0.02; warm-up of two steps, then halved.
        np.testing.assert_allclose(
            results["log/loss/lr"], [0.01, 0.02, 0.02], rtol=1e-12
        )
        np.testing.assert_array_equal(results["log/global_step"], [1, 2, 3])
        kernel = results["final/model/wrn-28-1/head/dense/kernel"]
        assert kernel.shape == (64, 7)

    @pytest.mark.long
    def test_without_decay_averages_are_copies(self, trace, tmp_path):
        results = self.replayed(trace, tmp_path)
        weights = [n for n in results if n.startswith("final/model/")]
        assert len(weights) == 129  # No slots: it is plain SGD.
        for name in weights:
            average = name.replace("final/", "final/ema/")
            np.testing.assert_array_equal(results[name], results[average])

    @pytest.mark.long
    def test_no_evaluation_without_its_images(self, trace, tmp_path):
        results = self.replayed(trace, tmp_path)
        assert not [name for name in results if name.startswith("eval/")]

    @pytest.mark.long
    def test_a_step_that_is_not_finite_is_skipped(self, trace, tmp_path):
        """Quirk 19: neither the weights nor the counter move."""
        trace["input/l_images"][1] = np.inf
        results = self.replayed(trace, tmp_path)
        np.testing.assert_array_equal(results["log/global_step"], [1, 1, 2])

    def test_dropout_cannot_be_repeated(self, trace, tmp_path):
        hparams = json.loads(str(trace["hparams_json"]))
        hparams["dense_dropout_rate"] = 0.2
        trace["hparams_json"] = np.array(json.dumps(hparams))
        with pytest.raises(ValueError, match="dense_dropout_rate=0.2"):
            self.replayed(trace, tmp_path)

    @pytest.mark.fast(
        "changes1-trace of None", "changes3-cannot be repeated: .*adagrad"
    )
    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            (dict(method="noisy"), "trace of 'noisy'"),
            (dict(method=None), "trace of None"),
            (dict(method="uda"), "missing: .*u_images_ori"),
            (dict(optim_type="adagrad"), "cannot be repeated: .*adagrad"),
            (dict(model_type="resnet-50"), "cannot be repeated: .*another net"),
        ],
    )
    def test_bad_hparams_are_named(self, trace, tmp_path, changes, message):
        hparams = json.loads(str(trace["hparams_json"])) | changes
        trace["hparams_json"] = np.array(json.dumps(hparams))
        with pytest.raises(ValueError, match=message):
            self.replayed(trace, tmp_path)

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("hparams_json", np.array("[1, 2]"), "is not a trace"),
            ("hparams_json", np.array('{"method"'), "is not a trace"),
            ("hparams_json", np.array("{}"), "lacks .*model_type"),
            ("input/l_images", np.zeros((0, 4, 10, 10, 3)), r"steps: \[0, 3\]"),
            ("input/l_labels", np.zeros((3, 4), int), "one-hot floats"),
            ("init/model/wrn-28-1/other", np.zeros(3), "other'\\] are not"),
        ],
    )
    def test_bad_arrays_are_named(self, trace, tmp_path, name, value, message):
        trace[name] = value
        with pytest.raises(ValueError, match=message):
            self.replayed(trace, tmp_path)

    @pytest.mark.long
    def test_names_in_capitals_and_settings_left_open(self, trace, tmp_path):
        """The release takes both."""
        hparams = json.loads(str(trace["hparams_json"]))
        hparams |= dict(optim_type="SGD", grad_bound=None, ema_decay=1.0)
        trace["hparams_json"] = np.array(json.dumps(hparams))
        results = self.replayed(trace, tmp_path)
        # s = 0, 1, 2 since the start: the average moves by 9 / (s + 10).
        name = "model/wrn-28-1/head/dense/bias"
        assert np.any(results[f"final/ema/{name}"] != results[f"final/{name}"])


def test_a_file_that_is_no_trace_is_refused(tmp_path):
    path = tmp_path / "other.npz"
    np.savez(path, images=np.zeros(3))
    with pytest.raises(ValueError, match="not a trace of the release: 'hparam"):
        replay(path)
    path.write_text("text")
    with pytest.raises(ValueError, match="is not a trace"):
        replay(path)
    with pytest.raises(ValueError, match="float16"):
        replay(path, "float16")


@pytest.fixture(autouse=True)
def forget_graphs():
    """Each replay leaves large graphs behind."""
    yield
    tf.keras.backend.clear_session()
