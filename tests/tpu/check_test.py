"""tpu/check.py, on this machine and at a tiny size."""

import re

import pytest

from tests.scripts import run_script
from tpu import check

TINY = (
    "--nouse_tpu",
    "--model_type=wrn-10-1",
    "--image_size=8",
    "--train_batch_size=2",
    "--uda_data=3",
)


@pytest.mark.long
def test_ten_steps():
    result = run_script("tpu.check", *TINY)
    assert result.returncode == 0, result.stderr[-2000:]
    found = dict(re.findall(r"^(\S.*?)  +(.*)$", result.stdout, re.MULTILINE))
    assert re.fullmatch(r"\d+ CPU.*", found["devices"])
    assert found["strategy"].endswith(", 1 replicas")
    assert "median of 10" in found["step"]
    assert found["images/s"].endswith("(2 + 6 a step)")
    seconds = float(found["step"].split()[0]) / 1e3
    images = float(found["images/s"].split()[0].strip(",").replace(",", ""))
    assert images * seconds == pytest.approx(8, rel=0.1)
    # 1,563,904 operations a forward pass (tests/benchmarks), of which a step of
    # `exact` has, per labeled image, 3 * 7 + 3 * 4 + 1 + 2 + 2 * 4 = 44.
    work = float(found["TFLOP/s"].split(",")[0]) * 1e12 * seconds
    assert work == pytest.approx(2 * 44 * 1_563_904, rel=0.05)
    assert 0 < float(found["loss"].split()[0]) < 20
    assert found["loss"].endswith("after 11 steps")


def test_without_a_tpu_it_says_so():
    with pytest.raises(SystemExit) as ended:
        check.main(["--train_batch_size=2"])
    assert ended.value.code.startswith(
        "Error: No TPU can be reached as --master=local: "
    )


@pytest.mark.parametrize(
    ("flag", "expected"),
    [
        ("--steps=0", "--steps=0"),
        ("--step=1", "Unknown command line flag 'step'"),
        ("--dataset_name=cifar10_4000", "steps of --method=mpl"),
        ("--dataset=folders", "--dataset=folders"),
    ],
)
def test_flags_that_cannot_be_meant_are_refused(flag, expected):
    with pytest.raises(SystemExit) as caught:
        check.main([flag])
    assert caught.value.code.startswith("Error: ")
    assert expected in caught.value.code


def test_a_batch_that_does_not_divide_is_refused():
    config, steps = check.parse(
        ["--nouse_tpu", "--train_batch_size=3", "--replicas_per_worker=2"]
    )
    assert steps == 10
    with pytest.raises(ValueError, match="=3 cannot be shared by 2 replicas"):
        check.connect(config)


@pytest.mark.long
def test_two_replicas_step_too():
    config, _ = check.parse(
        [
            "--nouse_tpu",
            "--train_batch_size=2",
            "--uda_data=1",
            "--model_type=wrn-10-1",
            "--image_size=8",
            "--nouse_bfloat16",
            "--replicas_per_worker=2",
        ]
    )
    strategy = check.connect(config)
    assert strategy.num_replicas_in_sync == 2
    _, step = check.build_step(config, strategy)
    assert 0 < step() < 10
