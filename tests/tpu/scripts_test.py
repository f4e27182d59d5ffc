"""tpu/*.sh: what they would ask gcloud for."""

import shlex

import pytest

from tests.tpu.shell import (
    FLAGFILE,
    PLACE,
    SETTINGS,
    TPU,
    commands,
    run,
    stand_in,
)

TPU_VM = ["gcloud", "compute", "tpus", "tpu-vm"]
QUEUE = ["gcloud", "compute", "tpus", "queued-resources"]


@pytest.fixture
def dry_run(forbidden):
    """The commands that a script prints, word by word, and does not run."""

    def call(script, *arguments, **environment):
        result = run(
            TPU / script,
            "--dry_run",
            *arguments,
            path=forbidden,
            **(SETTINGS | environment),
        )
        assert result.returncode == 0, result.stderr
        assert result.stderr == ""
        return commands(result.stdout)

    return call


def remote(command, worker=0):
    return [
        *(*TPU_VM, "ssh", "my-tpu"),
        *(f"--worker={worker}", f"--command={command}"),
        *PLACE,
    ]


@pytest.mark.parametrize(
    ("accelerator_type", "image"),
    [
        ("v2-8", "tpu-ubuntu2204-base"),
        ("v4-8", "tpu-ubuntu2204-base"),
        ("v5litepod-8", "v2-alpha-tpuv5-lite"),
        ("v5p-8", "v2-alpha-tpuv5"),
        ("v6e-8", "v2-alpha-tpuv6e"),
    ],
)
def test_create_knows_the_image_of_one_host(dry_run, accelerator_type, image):
    assert dry_run("create.sh", ACCELERATOR_TYPE=accelerator_type) == [
        [
            *(*TPU_VM, "create", "my-tpu"),
            f"--accelerator-type={accelerator_type}",
            f"--version={image}",
            *PLACE,
        ]
    ]


def test_create_a_pod_slice_that_may_be_taken_away(dry_run):
    image = "tpu-vm-tf-2.19.0-pod-pjrt"
    (command,) = dry_run(
        "create.sh", "--spot", ACCELERATOR_TYPE="v3-32", RUNTIME_VERSION=image
    )
    assert command == [
        *(*TPU_VM, "create", "my-tpu", "--accelerator-type=v3-32"),
        *(f"--version={image}", "--spot"),
        *PLACE,
    ]


def test_create_in_the_queue(dry_run):
    assert dry_run("create.sh", "--queued", "--spot") == [
        [
            *(*QUEUE, "create", "my-tpu", "--accelerator-type=v3-8"),
            "--node-id=my-tpu",
            "--runtime-version=tpu-ubuntu2204-base",
            "--spot",
            *PLACE,
        ],
        [*QUEUE, "describe", "my-tpu", "--format=value(state.state)", *PLACE],
    ]


@pytest.mark.parametrize(
    ("environment", "version"),
    [
        ({}, "2.19.1"),
        ({"TF_VERSION": "2.20.0"}, "2.20.0"),
        ({"ACCELERATOR_TYPE": "v3-32"}, "image"),
        ({"ACCELERATOR_TYPE": "v3-32", "TF_VERSION": "2.19.1"}, "2.19.1"),
    ],
)
def test_install_takes_the_checkout_to_all_hosts(dry_run, environment, version):
    archive = "build/mpl.tar.gz"
    assert dry_run("install.sh", **environment) == [
        ["mkdir", "-p", "build"],
        [
            *("git", "archive", "--format=tar.gz", "--prefix=mpl/"),
            *(f"--output={archive}", "HEAD"),
        ],
        [*TPU_VM, "scp", archive, "my-tpu:", "--worker=all", *PLACE],
        remote(
            f"tar -xzf mpl.tar.gz && bash mpl/tpu/host_install.sh {version}",
            worker="all",
        ),
    ]


@pytest.mark.parametrize(
    ("accelerator_type", "master"), [("v3-8", "local"), ("v3-32", "my-tpu")]
)
def test_launch_and_check_run_on_the_first_host(
    dry_run, accelerator_type, master
):
    environment = {"ACCELERATOR_TYPE": accelerator_type}
    flags = ["--data_dir=gs://mine/data", "--reset_output_dir"]
    (command,) = dry_run("launch.sh", "c10", FLAGFILE, *flags, **environment)
    assert command == remote(
        f"bash mpl/tpu/host_launch.sh {master} c10 {FLAGFILE} "
        "--data_dir=gs://mine/data --reset_output_dir"
    )
    (command,) = dry_run("check.sh", "--steps=3", **environment)
    assert command == remote(f"bash mpl/tpu/host_check.sh {master} --steps=3")


@pytest.mark.parametrize(
    "odd",
    ["--x=a b", "--x=it's", '--x="$HOME"', "--x=*;rm", "--x=", "--x=`id`\\"],
)
def test_what_a_shell_would_misread_arrives_as_it_was(dry_run, odd):
    (command,) = dry_run("launch.sh", "c10", FLAGFILE, odd)
    prefix = "--command="
    (line,) = [word for word in command if word.startswith(prefix)]
    assert shlex.split(line[len(prefix) :])[-1] == odd


def test_watch_asks_for_the_state_and_follows_the_log(dry_run):
    assert dry_run("watch.sh", "c10") == [
        [*TPU_VM, "describe", "my-tpu", "--format=value(state,health)", *PLACE],
        remote("tail -n 40 -F mpl/runs/c10.log"),
    ]


def test_fetch_takes_a_run_and_its_log(dry_run, tmp_path):
    folder = str(tmp_path / "here")
    copy = [
        *(*TPU_VM, "scp", "--recurse", "--worker=0"),
        *("my-tpu:mpl/runs/c10", "my-tpu:mpl/runs/c10.log"),
    ]
    assert dry_run("fetch.sh", "c10", folder) == [
        ["mkdir", "-p", folder],
        [*copy, folder, *PLACE],
    ]
    assert dry_run("fetch.sh", "c10")[-1] == [*copy, "runs", *PLACE]


@pytest.mark.parametrize(
    ("given", "there"),
    [
        ("/mnt/runs/first", "/mnt/runs/first"),
        ("runs/2/c10", "mpl/runs/2/c10"),  # From where main.py runs.
    ],
)
def test_fetch_looks_where_the_run_was_told_to_write(dry_run, given, there):
    copy = [*TPU_VM, "scp"]
    assert dry_run("fetch.sh", f"--output_dir={given}", "c10")[1:] == [
        [*copy, "--recurse", "--worker=0", f"my-tpu:{there}", "runs/c10"]
        + PLACE,
        [*copy, "--worker=0", "my-tpu:mpl/runs/c10.log", "runs", *PLACE],
    ]


def test_delete(dry_run):
    assert dry_run("delete.sh") == [
        [*TPU_VM, "delete", "my-tpu", "--quiet", *PLACE]
    ]
    assert dry_run("delete.sh", "--queued") == [
        [*QUEUE, "delete", "my-tpu", "--force", "--quiet", *PLACE]
    ]


@pytest.fixture
def recorded(tmp_path):
    """Folder of a gcloud and a git that write down their words, one a line."""
    folder = tmp_path / "recording"
    stand_in(folder, "mkdir", "")
    for name in ("gcloud", "git"):
        stand_in(
            folder,
            name,
            f'[[ $1 != status ]] || exit 0; printf "%s\\n" {name} "$@" '
            f">>{tmp_path}/words; echo >>{tmp_path}/words",
        )
    return folder


@pytest.mark.parametrize(
    "call",
    [
        ("create.sh", "--queued"),
        ("install.sh",),
        ("launch.sh", "c10", FLAGFILE, "--data_dir=it's here"),
        ("check.sh",),
        ("watch.sh", "c10"),
        ("delete.sh", "--yes"),
    ],
    ids=lambda call: call[0],
)
def test_a_dry_run_prints_what_would_be_called(dry_run, recorded, call):
    printed = [c for c in dry_run(*call) if c[0] != "mkdir"]
    script, *arguments = call
    result = run(TPU / script, *arguments, path=recorded, **SETTINGS)
    assert result.returncode == 0, result.stderr
    words = (recorded.parent / "words").read_text().split("\n\n")[:-1]
    assert [block.split("\n") for block in words] == printed


def test_delete_takes_the_name_for_an_answer(recorded):
    result = run(
        TPU / "delete.sh", path=recorded, answer="my-tpu\n", **SETTINGS
    )
    assert result.returncode == 0, result.stderr
    assert "delete" in (recorded.parent / "words").read_text().split("\n")
