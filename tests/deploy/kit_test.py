"""The ops kit: what its files start is there, and they say what they should."""

import pathlib
import re
import subprocess
import sys

import pytest
import tensorboard
import yaml

from meta_pseudo_labels.data.streams.service.__main__ import parse
from meta_pseudo_labels.export.serving.__main__ import parse_arguments
from meta_pseudo_labels.run import cli
from meta_pseudo_labels.run.recipes import expand
from tests.command_line import defined
from tests.scripts import ROOT
from tests.tpu.shell import run, stand_in

DEPLOY = ROOT / "deploy"
COMPOSE = ("compose.yaml", "compose.gpu.yaml")
SERVICE = ["python", "-m", "meta_pseudo_labels.data.streams.service"]
TOOLS = pathlib.Path(sys.executable).parent


def documents(name):
    """What a file of YAML holds, as compose and Kubernetes read it."""
    text = (DEPLOY / name).read_text()
    filled = re.sub(r"\$\{\w+:-(\w+)\}", r"\1", text)
    return list(yaml.safe_load_all(filled))


def dockerfile():
    """The instructions by stage: a dict of lists of (word, rest)."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    stages, lines = {}, []
    for line in re.sub("(?m)^#.*$", "", text).splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "FROM":
            lines = stages.setdefault(rest.split(" AS ")[1], [])
        if word:
            lines.append((word, " ".join(rest.split())))
    return stages


def entrypoint(target):
    (words,) = [r for w, r in dockerfile()[target] if w == "ENTRYPOINT"]
    return yaml.safe_load(words)


def commands():
    """Every command that the kit starts, as lists of words."""
    for target in ("train", "server"):
        (words,) = [r for w, r in dockerfile()[target] if w == "CMD"]
        yield [*entrypoint(target), *yaml.safe_load(words)]
    for service in documents("compose.yaml")[0]["services"].values():
        first = entrypoint(service["build"]["target"])
        yield [*service.get("entrypoint", first), *service["command"]]
    for name in ("train", "server"):
        pod = documents(f"kubernetes/{name}.yaml")[0]["spec"]["template"]
        (container,) = pod["spec"]["containers"]
        yield [*entrypoint(name), *container["args"]]


def check(words, monkeypatch):
    """Parses a command's words as the program does that it starts."""
    if words[:3] == SERVICE:
        parse(words[3:])
    elif words[:2] == ["mpl", "serve"]:
        monkeypatch.setattr(sys, "argv", words[1:])
        parse_arguments()
    elif words[0] == "mpl":
        assert words[1] == "help" or words[1] in cli.task_modes(), words
        arguments = expand(words[2:])
        defined(arguments)(["mpl", *arguments])
    else:
        assert words[0] == "tensorboard", words
        plugin = pathlib.Path(tensorboard.__file__).parent
        # Its parser brings warnings of what it carries along.
        source = (plugin / "plugins" / "core" / "core_plugin.py").read_text()
        for word in words[1:]:
            assert f'"{word.partition("=")[0]}",' in source, word


def test_all_commands_and_flags_of_the_kit_exist(monkeypatch):
    found = list(commands())
    assert len(found) == 11
    for words in found:
        check(words, monkeypatch)


def test_what_does_not_exist_would_be_seen(monkeypatch):
    with pytest.raises(AssertionError):
        check(["mpl", "trian"], monkeypatch)
    with pytest.raises(Exception, match="no_such_flag"):
        check(["mpl", "train", "--no_such_flag=1"], monkeypatch)
    for words in (SERVICE, ["mpl", "serve"], ["tensorboard"]):
        with pytest.raises((AssertionError, SystemExit)):
            check([*words, "--no_such_flag=1"], monkeypatch)


def test_probes_ask_what_the_server_answers():
    routes = (
        ROOT / "meta_pseudo_labels" / "export" / "serving" / "server.py"
    ).read_text()
    pod = documents("kubernetes/server.yaml")[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    asked = [
        container[f"{name}Probe"]["httpGet"]["path"]
        for name in ("startup", "liveness", "readiness")
    ]
    (health,) = [r for w, r in dockerfile()["server"] if w == "HEALTHCHECK"]
    asked += re.findall(r"\['PORT'\] \+ '(/\w+)'", health)
    assert len(asked) == 4
    assert all(f'add_get("{path}"' in routes for path in asked)
    assert ("ENV", "PORT=8501") in dockerfile()["server"]


def test_a_pod_that_ends_is_asked_nothing_before_its_server_does():
    pod = documents("kubernetes/server.yaml")[0]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    word, seconds = container["lifecycle"]["preStop"]["exec"]["command"]
    assert word == "sleep"
    ends_within = 20  # As docs/serving.md says.
    assert int(seconds) + ends_within < pod["terminationGracePeriodSeconds"]


@pytest.mark.parametrize("stage", ["finetune", "export"])
def test_the_same_job_makes_what_the_server_serves(stage, monkeypatch):
    text = (DEPLOY / "kubernetes" / "server.yaml").read_text()
    (script,) = re.findall(r'sed "(.*)"', text)
    job = subprocess.run(
        ["sed", script.replace("$stage", stage)],
        input=(DEPLOY / "kubernetes" / "train.yaml").read_bytes(),
        capture_output=True,
        check=True,
    )
    job = yaml.safe_load(job.stdout)
    assert job["metadata"]["name"] == f"mpl-{stage}"
    (container,) = job["spec"]["template"]["spec"]["containers"]
    words = container["args"]
    assert words == [stage, "--output_dir=/runs/digits", "--log_format=json"]
    check([*entrypoint("train"), *words], monkeypatch)
    args = documents("kubernetes/server.yaml")[0]["spec"]["template"]["spec"][
        "containers"
    ][0]["args"]
    assert args[0] == "--saved_model=/runs/digits/saved_model"


def test_the_wheel_is_built_with_what_is_pinned():
    (build,) = [r for w, r in dockerfile()["wheel"] if w == "RUN"]
    assert "--require-hashes --requirement deploy/locks/build.txt" in build
    assert "--no-build-isolation" in build


def test_the_job_goes_on_after_75_alone():
    (job,) = documents("kubernetes/train.yaml")
    rules = job["spec"]["podFailurePolicy"]["rules"]
    by_code = {
        code: rule["action"]
        for rule in reversed(rules)  # The first that fits counts.
        for code in rule.get("onExitCodes", {"values": []})["values"]
    }
    assert by_code == {75: "Ignore", 1: "FailJob", 2: "FailJob"}
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert all(
        rule["onExitCodes"]["containerName"] == container["name"]
        for rule in rules
        if "onExitCodes" in rule
    )
    assert job["spec"]["template"]["spec"]["restartPolicy"] == "Never"


def test_images_are_no_root_and_nobody_elses():
    stages = dockerfile()
    bases = [
        rest.split()[0] for lines in stages.values() for _, rest in lines[:1]
    ]
    assert set(bases) == {"python:${PYTHON}-slim", "base"}
    assert ("USER", "10001") in stages["base"]
    for name in ("train", "server"):
        pod = documents(f"kubernetes/{name}.yaml")[0]["spec"]["template"]
        assert pod["spec"]["securityContext"]["runAsUser"] == 10001
    for name in COMPOSE:
        for service in documents(name)[0]["services"].values():
            assert service["image"].startswith("mpl")


def test_the_image_gets_what_the_wheel_is_built_of():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    recipes = (ROOT / "meta_pseudo_labels" / "recipes").resolve().name
    assert kept >= {"pyproject.toml", "meta_pseudo_labels", recipes}
    named = re.findall(
        r'"?(?:README\.md|LICENSE|requirements\.txt)"?',
        (ROOT / "pyproject.toml").read_text(),
    )
    assert kept >= {name.strip('"') for name in named}
    copied = [r.split()[0] for w, r in dockerfile()["installed"] if w == "COPY"]
    assert copied[0] == "deploy/locks" and copied[0] in kept


@pytest.mark.parametrize(
    "command",
    [
        ["hadolint", "Dockerfile"],
        ["check-jsonschema", "--builtin-schema=vendor.compose-spec", *COMPOSE],
    ],
    ids=["hadolint", "compose"],
)
def test_their_own_tools_find_nothing(command):
    tool = TOOLS / command[0]
    if not tool.exists():  # There is none for every kind of machine.
        pytest.skip(f"{command[0]} is absent; `make setup` installs it.")
    result = subprocess.run(
        [tool, *command[1:]], cwd=DEPLOY, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture
def array(tmp_path):
    """Runs a task of the job array; `srun` and `scontrol` note their words."""
    bin = tmp_path / "bin"
    stand_in(bin, "srun", 'printf "%s\\n" "$@" >srun; exit "$STATUS"')
    stand_in(bin, "scontrol", 'echo "$@" >scontrol')

    def task(*arguments, **environment):
        names = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
        result = run(
            DEPLOY / "slurm_array.sh",
            *arguments,
            path=bin,
            cwd=tmp_path,
            **(names | environment),
        )
        said = tmp_path / "scontrol"
        return result, said.read_text() if said.exists() else None

    return task


def test_a_task_of_the_array_trains_one_seed(array, tmp_path, monkeypatch):
    result, said = array("/runs/c10", "--recipe=digits_mpl", STATUS="0")
    assert (result.returncode, said) == (0, None)
    words = (tmp_path / "srun").read_text().splitlines()
    check(words, monkeypatch)
    assert {"--seed=3", "--output_dir=/runs/c10/seed_3"} < set(words)


@pytest.mark.parametrize(
    ("status", "restarts", "queued"),
    [("75", "0", True), ("75", "100", False), ("1", "0", False)],
)
def test_a_task_is_queued_again_after_75_alone(array, status, restarts, queued):
    result, said = array("r", STATUS=status, SLURM_RESTART_COUNT=restarts)
    assert result.returncode == int(status)
    assert said == ("requeue 7_3\n" if queued else None)
    assert ("was stopped 100 times" in result.stderr) == (restarts == "100")


def test_an_array_without_a_folder_or_number_is_refused(array, tmp_path):
    for arguments, environment in (
        ((), {}),
        (("r",), {"SLURM_ARRAY_TASK_ID": ""}),
        (("--recipe=digits_mpl",), {}),
        (("-recipe=digits_mpl", "r"), {}),
        (("",), {}),
    ):
        result, said = array(*arguments, STATUS="0", **environment)
        assert result.returncode == 1 and said is None
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert not (tmp_path / "srun").exists()


def test_a_task_that_cannot_be_queued_again_says_so(array, tmp_path):
    stand_in(tmp_path / "bin", "scontrol", "exit 1")
    result, _ = array("r", STATUS="75")
    assert result.returncode == 75
    assert "scontrol could not queue 7_3 again" in result.stderr
    assert "r/seed_3" in result.stderr
