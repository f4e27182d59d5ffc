"""tpu/*.sh: what they refuse, and what they ask before."""

import re
import shutil

import pytest

from tests.tpu.shell import FLAGFILE, SETTINGS, TPU, refusal, run

SCRIPTS = {
    "create.sh": (),
    "install.sh": (),
    "launch.sh": ("c10", FLAGFILE),
    "check.sh": (),
    "watch.sh": ("c10",),
    "fetch.sh": ("c10",),
    "delete.sh": ("--yes",),
}


@pytest.mark.parametrize("script", SCRIPTS)
def test_missing_settings_are_named(forbidden, script):
    some = {"ZONE": "us-central1-b", "ACCELERATOR_TYPE": "v3-8", "PROJECT": ""}
    message = refusal(TPU / script, *SCRIPTS[script], path=forbidden, **some)
    assert "set TPU_NAME PROJECT in the environment" in message
    assert "ZONE" not in message


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (("create.sh", "--sport"), {}, "'--sport'; see create.sh --help"),
        (("create.sh",), {"ACCELERATOR_TYPE": "v3"}, "such as v3-8"),
        (("create.sh",), {"ACCELERATOR_TYPE": "v3-32"}, "set RUNTIME_VERSION"),
        (("create.sh",), {"ACCELERATOR_TYPE": "v9-8"}, "set RUNTIME_VERSION"),
        (("launch.sh", "c10"), {}, "name a run and a flagfile"),
        (("launch.sh", "--pod", "c10", FLAGFILE), {}, "'--pod'"),
        (("launch.sh", "../c10", FLAGFILE), {}, "name of a run"),
        (("launch.sh", "c10", "c10.flags"), {}, "there is no c10.flags"),
        (("watch.sh",), {}, "name the run"),
        (("watch.sh", "a", "b"), {}, "'b'"),
        (("watch.sh", "a;b"), {}, "name of a run"),
        (("fetch.sh",), {}, "name the run"),
        (("fetch.sh", "x", "y", "z"), {}, "'z'"),
        (("fetch.sh", "--output_dir=", "x"), {}, "'--output_dir='"),
    ],
)
def test_refusals(forbidden, arguments, environment, expected):
    script, *arguments = arguments
    message = refusal(
        TPU / script, *arguments, path=forbidden, **(SETTINGS | environment)
    )
    assert expected in message


def test_fetch_leaves_a_run_that_is_there_alone(forbidden, tmp_path):
    (tmp_path / "c10").mkdir()
    message = refusal(
        TPU / "fetch.sh", "c10", str(tmp_path), path=forbidden, **SETTINGS
    )
    assert f"{tmp_path}/c10 is there already" in message


def test_a_missing_gcloud_is_named(tmp_path):
    for name in ("bash", "dirname"):  # All that it needs before gcloud.
        (tmp_path / name).symlink_to(shutil.which(name))
    message = refusal(TPU / "create.sh", **SETTINGS, PATH=str(tmp_path))
    assert "gcloud is not installed" in message


@pytest.mark.parametrize("answer", ["", "y\n", "my-tp\n"])
def test_delete_asks(forbidden, answer):
    result = run(TPU / "delete.sh", path=forbidden, answer=answer, **SETTINGS)
    assert result.returncode == 1
    assert "Deletes my-tpu in us-central1-b" in result.stdout
    assert result.stderr.strip().endswith("nothing was deleted.")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(forbidden, script):
    result = run(TPU / script, "--help", path=forbidden)
    assert result.returncode == 0
    assert f"tpu/{script} [" in result.stdout
    assert "--dry_run  print the commands and do nothing" in result.stdout
    assert "set -euo" not in result.stdout


def test_the_readme_names_what_there_is():
    readme = (TPU / "README.md").read_text()
    for script in SCRIPTS:
        assert f"tpu/{script}" in readme
    for link in re.findall(r"\]\((?!https:)([^)#:]+)\)", readme):
        assert (TPU / link).exists(), link
    for named in re.findall(r"(?<!\[)`(?:tpu/)?(\w+\.(?:sh|py))`", readme):
        known = (TPU, TPU.parent)
        assert any((folder / named).exists() for folder in known), named
