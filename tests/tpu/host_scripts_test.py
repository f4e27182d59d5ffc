"""What runs on the TPU's hosts, with stand-ins for Python and pip."""

import os
import pathlib
import shutil
import signal
import time

import pytest

from meta_pseudo_labels.run.config.flags import config_from_flags
from tests.command_line import defined
from tests.tpu.shell import FLAGFILE, ROOT, refusal, run, stand_in

# A Python that notes its words and the environment that reaches the TPU.
PYTHON = """
case $2 in
  *libtpu*) echo /venv/libtpu/libtpu.so; exit ;;
esac
{ printf '%s\\n' "$@"; env | grep -E '^(TPU_|TF_PLUG|NEXT_)' | sort; } \
  >"$HOME/words"
"""


@pytest.fixture
def host(tmp_path):
    """A home folder with the checkout's scripts, requirements and flags."""
    checkout = tmp_path / "mpl"
    for folder in ("tpu", "flags"):
        shutil.copytree(ROOT / folder, checkout / folder)
    shutil.copy(ROOT / "requirements.txt", checkout)
    stand_in(tmp_path / "mpl_venv" / "bin", "python", PYTHON)

    def call(script, *arguments, **environment):
        result = run(
            checkout / "tpu" / script,
            *arguments,
            cwd=tmp_path,
            **({"HOME": str(tmp_path)} | environment),
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    call.home = tmp_path
    call.scripts = checkout / "tpu"
    return call


def words(host):
    return (host.home / "words").read_text().splitlines()


def wait_until(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def under_way(number):
    """Whether a process runs, by its command line; a dead one has none."""
    path = pathlib.Path(f"/proc/{number}/cmdline")
    try:
        return b"main.py" in path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False


def log(host, name):
    return (host.home / "mpl" / "runs" / f"{name}.log").read_text()


def test_launch_on_one_host(host):
    host("host_launch.sh", "local", "c10", FLAGFILE, "--lr=0.5", "--x=a b")
    wait_until(lambda: "ended with status 0" in log(host, "c10"))
    assert words(host) == [
        "-u",
        "main.py",
        f"--flagfile={FLAGFILE}",
        "--distribution=tpu",
        "--use_tpu",
        "--master=local",
        "--output_dir=runs/c10",
        "--noreset_output_dir",
        "--lr=0.5",
        "--x=a b",
        "NEXT_PLUGGABLE_DEVICE_USE_C_API=true",
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH=/venv/libtpu/libtpu.so",
    ]
    assert "started: main.py --flagfile=" in log(host, "c10")


def test_launch_on_a_pod_slice_leaves_the_chips_to_its_servers(host):
    host("host_launch.sh", "my-pod", "c10", FLAGFILE)
    wait_until(lambda: "ended with status 0" in log(host, "c10"))
    assert "--master=my-pod" in words(host)
    assert words(host)[-2:] == ["TPU_LOAD_LIBRARY=0", "TPU_NAME=my-pod"]


def test_the_images_own_library_is_kept(host):
    library = "/lib/libtpu.so"
    host("host_check.sh", "local", TF_PLUGGABLE_DEVICE_LIBRARY_PATH=library)
    assert words(host)[:3] == ["-m", "tpu.check", "--master=local"]
    assert words(host)[-1] == f"TF_PLUGGABLE_DEVICE_LIBRARY_PATH={library}"


def test_main_knows_the_flags_that_launch_gives_it(host, monkeypatch):
    host("host_launch.sh", "local", "c10", FLAGFILE)
    wait_until(lambda: "ended" in log(host, "c10"))
    given = [word for word in words(host) if word.startswith("--")]
    monkeypatch.chdir(ROOT)
    values = defined()
    values(["main.py", *given])
    config = config_from_flags(values)
    assert (config.distribution, config.master) == ("tpu", "local")
    assert not config.reset_output_dir  # Which the flagfile sets.


def test_the_tpu_is_one_runs_alone(host):
    stand_in(host.home / "mpl_venv" / "bin", "python", "exec sleep 60")
    host(
        "host_launch.sh",
        *("my-pod", "first", FLAGFILE),
    )
    number, name = (host.home / "mpl" / "runs" / "tpu.pid").read_text().split()
    try:
        assert name == "first"
        for call in (
            ("host_launch.sh", "my-pod", "first", FLAGFILE),
            ("host_launch.sh", "my-pod", "second", FLAGFILE),
            ("host_check.sh", "my-pod"),
            ("host_install.sh", "2.19.1"),
        ):
            script, *arguments = call
            message = refusal(
                host.scripts / script, *arguments, HOME=str(host.home)
            )
            assert f"run first is under way here (process {number})" in message
            assert message.endswith(f"kill -TERM -{number}")
        assert not (host.home / "mpl" / "runs" / "second.log").exists()
    finally:
        os.killpg(int(number), signal.SIGTERM)  # As the message says.
    wait_until(lambda: not under_way(number))
    stand_in(host.home / "mpl_venv" / "bin", "python", "exit 3")
    host("host_launch.sh", "my-pod", "first", FLAGFILE)
    wait_until(lambda: "ended with status 3" in log(host, "first"))
    assert log(host, "first").count("started: ") == 2


@pytest.fixture
def installs(host):
    """What `host_install.sh` asks of Python: lines of words."""
    venv = host.home / "mpl_venv"
    shutil.rmtree(venv)
    # Of the system: `-m venv ... FOLDER` makes one whose Python takes notes.
    stand_in(
        host.home / "bin",
        "python3",
        f"""
echo "python3 $*" >>{host.home}/words
[[ $2 != venv ]] || {{
  mkdir -p "${{@: -1}}/bin"
  cd "${{@: -1}}/bin"
  printf '#!/bin/bash\\necho "$*" >>{host.home}/words\\n' >python
  chmod +x python
}}""",
    )

    def call(version):
        path = f"{host.home}/bin{os.pathsep}{os.environ['PATH']}"
        host("host_install.sh", version, PATH=path)
        requirements = (venv / "requirements.txt").read_text().splitlines()
        names = [line for line in requirements if line and line[0] != "#"]
        return words(host), names

    return call


def test_install_replaces_tensorflow_by_the_one_for_tpus(host, installs):
    lines, requirements = installs("2.19.1")
    venv = host.home / "mpl_venv"
    assert lines[1:5] == [
        f"python3 -m venv {venv}",
        "-m pip install --quiet --upgrade pip",
        f"-m pip install --quiet --requirement {venv}/requirements.txt "
        "--find-links="
        "https://storage.googleapis.com/libtpu-tf-releases/index.html",
        "-m pip install --quiet --no-deps --editable "
        f"{host.home.resolve()}/mpl",
    ]
    ours = (ROOT / "requirements.txt").read_text().splitlines()
    ours = [line for line in ours if line and line[0] != "#"]
    plain = [line for line in ours if line.startswith("tensorflow>")]
    assert len(plain) == 1
    assert requirements == [
        *(line for line in ours if line not in plain),
        "tensorflow-tpu==2.19.1",
    ]


def test_install_on_a_pod_slice_keeps_the_images_tensorflow(host, installs):
    lines, requirements = installs("image")
    assert lines[1] == (
        f"python3 -m venv --system-site-packages {host.home}/mpl_venv"
    )
    assert not any(line.startswith("tensorflow-tpu") for line in requirements)
    assert requirements[-2:] == ["google-api-python-client", "oauth2client"]


@pytest.mark.parametrize(
    ("script", "arguments"),
    [
        ("host_install.sh", ()),
        ("host_install.sh", ("",)),
        ("host_launch.sh", ("local", "c10")),
        ("host_check.sh", ()),
    ],
)
def test_usage(host, script, arguments):
    message = refusal(host.scripts / script, *arguments, HOME=str(host.home))
    assert f"usage: {script}" in message


def test_the_name_of_a_run_stays_in_its_folder(host):
    message = refusal(
        host.scripts / "host_launch.sh",
        *("local", "../c10", FLAGFILE),
        HOME=str(host.home),
    )
    assert "name of a run" in message
