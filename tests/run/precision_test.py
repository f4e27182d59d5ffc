"""`--precision`, with processors and measurements that are made up."""

import functools
import json
import subprocess

import pytest

from meta_pseudo_labels.run import precision
from meta_pseudo_labels.run.config import Config
from meta_pseudo_labels.run.experiment import Experiment
from meta_pseudo_labels.run.folder import RunFolder
from meta_pseudo_labels.utils.settings import ConfigError

AUTO = dict(precision="auto", dataset="digits", model_type="mlp")


@pytest.fixture
def machine(monkeypatch):
    """A function that makes this machine another one."""

    def make(flags, ratio=None):
        monkeypatch.setattr(precision, "processor_flags", lambda: set(flags))

        def measured():
            assert ratio is not None, "Nothing was to be measured."
            return ratio if ratio else None

        monkeypatch.setattr(precision, "measured_ratio", measured)

    return make


def choice(folder, **settings):
    config = Config(**AUTO | settings, output_dir=str(folder))
    return precision.settled(config, RunFolder(folder)).use_bfloat16


@pytest.mark.parametrize(
    ("flags", "ratio", "want", "why"),
    [
        (("avx2",), None, False, "none of amx_bf16, avx512_bf16"),
        ((), None, False, "none of"),
        (("avx512_bf16",), 0.6, True, "took 0.60 of float32's time"),
        (("amx_bf16", "avx2"), 0.9, True, "took 0.90"),
        (("amx_bf16",), 0.95, False, "took 0.95"),
        (("amx_bf16",), 0, False, "the measurement of bfloat16 failed"),
    ],
)
def test_auto_takes_what_pays(
    flags, ratio, want, why, machine, tmp_path, capsys
):
    machine(flags, ratio)
    assert choice(tmp_path) is want
    (line,) = capsys.readouterr().out.splitlines()
    assert f"auto takes {'bfloat16' if want else 'float32'}: " in line
    assert why in line


def test_auto_takes_bfloat16_on_a_tpu(machine, tmp_path):
    machine(())
    assert choice(tmp_path, distribution="tpu")


@pytest.mark.parametrize("began", [True, False])
def test_a_run_goes_on_in_what_it_began_with(began, machine, tmp_path):
    """On a machine that would choose the other."""
    machine(("amx_bf16",), 0.5 if began else 2.0)
    first = Experiment(Config(**AUTO, output_dir=str(tmp_path))).config
    assert first.use_bfloat16 is began
    RunFolder(tmp_path).save_settings(first)
    saved = json.loads((tmp_path / "hparams.json").read_text())
    assert saved["use_bfloat16"] is began
    machine(("amx_bf16",), 2.0 if began else 0.5)
    again = Experiment(Config(**AUTO, output_dir=str(tmp_path))).config
    assert again.use_bfloat16 is began
    later = Config(**saved | dict(task_mode="eval"))
    assert Experiment(later).config.use_bfloat16 is began
    other = AUTO | dict(precision="float32" if began else "bfloat16")
    with pytest.raises(ConfigError, match="use_bfloat16 was"):
        Experiment(Config(**other, output_dir=str(tmp_path)))
    assert choice(tmp_path, reset_output_dir=True) is not began


def test_bfloat16_is_another_word():
    assert Config(precision="bfloat16").use_bfloat16
    assert not Config(precision="float32").use_bfloat16
    with pytest.raises(ConfigError, match="contradict each other"):
        Config(precision="float32", use_bfloat16=True)


@pytest.mark.parametrize(
    "settings",
    [
        dict(distribution="multi_worker"),
        dict(worker_addresses="a:1,b:1", worker_index=0),
    ],
)
def test_workers_are_to_be_told(settings, machine, tmp_path):
    machine(("amx_bf16",), 0.5)
    with pytest.raises(ConfigError, match="all workers must use the same"):
        choice(tmp_path, **settings)


def test_flags_are_read_from_the_description_of_the_processor(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("processor : 0\nflags\t\t: fpu avx2 amx_bf16\nbugs :\n")
    assert precision.processor_flags(path) == {"fpu", "avx2", "amx_bf16"}
    assert precision.processor_flags(tmp_path / "none") == set()


@pytest.mark.parametrize(
    ("said", "want"), [("a note\n0.625\n", 0.625), ("oops", None), ("", None)]
)
def test_a_measurement_is_what_its_process_says(said, want, monkeypatch):
    def run(command, **_):
        assert command[1:] == ["-m", "meta_pseudo_labels.run.precision"]
        return subprocess.CompletedProcess(command, 0, stdout=said)

    monkeypatch.setattr(subprocess, "run", run)
    assert precision.measured_ratio() == want


def test_it_measures_gradients_in_both(monkeypatch):
    types, times = [], {"float32": 4.0, "bfloat16": 1.0}

    def seconds(step):
        types.append(step()[0].dtype.name)
        return times[types[-1]]

    small = functools.partial(precision._convolution, images=1, size=3)
    monkeypatch.setattr(precision, "_convolution", small)
    monkeypatch.setattr(precision, "_seconds", seconds)
    assert precision.measure(rounds=1) == 0.25
    assert types == ["float32", "bfloat16"] * 3
