"""The wheel: what is in it, and that it works without the checkout."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import urllib.request
import venv
import zipfile

import pytest

from tests.scripts import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of what git tracks, or would, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.splitlines()
    for name in names:
        path = source / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).exists():  # Deleted ones are still listed.
            shutil.copy2(ROOT / name, path, follow_symlinks=False)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
        + ["--no-build-isolation", "--wheel-dir", folder, source],
        check=True,
        capture_output=True,
    )
    (path,) = folder.glob("*.whl")
    return path


def test_it_has_the_package_the_recipes_and_the_command(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (entry,) = [n for n in names if n.endswith("entry_points.txt")]
        assert "mpl = meta_pseudo_labels.run.cli:main" in (
            archive.read(entry).decode()
        )
    package = ROOT / "meta_pseudo_labels"
    modules = {
        str(path.relative_to(ROOT))
        for path in package.rglob("*.py")
        if "recipes" not in path.parts
    }
    recipes = {
        f"meta_pseudo_labels/recipes/{path.name}"
        for path in (ROOT / "flags").glob("*.flags")
    }
    templates = {
        str(path.relative_to(ROOT)) for path in package.rglob("*.html")
    }
    assert recipes and templates
    assert modules | recipes | templates <= names
    tops = {name.split("/")[0] for name in names}
    assert tops == {
        "meta_pseudo_labels",
        next(top for top in tops if top.endswith(".dist-info")),
    }


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A function that runs `mpl` of a virtual environment elsewhere.

    It sees the libraries of this one, to spare gigabytes, but not the checkout:
    an editable installation is a hook that this environment does not run.
    """
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "venv", with_pip=True, symlinks=True)
    binaries = folder / "venv" / "bin"
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    libraries = pathlib.Path(pytest.__file__).parents[1]
    # As text that is no code: .pth files in there are not read.
    (site / "libraries.pth").write_text(f"{libraries}\n")
    subprocess.run(
        [binaries / "python", "-m", "pip", "install", "--quiet"]
        + ["--no-deps", "--force-reinstall", wheel],
        check=True,
    )
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}

    def start(*arguments, **kwargs):
        return subprocess.Popen(
            [binaries / "mpl", *arguments],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    where = subprocess.run(
        [binaries / "python", "-c"]
        + ["import meta_pseudo_labels as m; print(m.__file__)"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.startswith(str(folder))
    return start


def finished(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return output


@pytest.mark.long
def test_installed_elsewhere_it_trains_exports_and_serves(installed):
    run = "--output_dir=run"
    said = finished(
        installed(
            "train",
            "--recipe=digits_mpl",
            run,
            "--model_type=mlp",
            "--num_train_steps=4",
            "--save_every=2",
            "--log_every=1",
            "--noprogress",
        )
    )
    assert "Trained: run" in said
    fixmatch = ("--method=fixmatch", "--fixmatch_threshold=0.5")
    said = finished(
        installed(
            "train",
            "--recipe=digits_uda",
            "--output_dir=fixmatch",
            *fixmatch,
            "--replicas_per_worker=2",
            "--model_type=mlp",
            "--num_train_steps=4",
            "--save_every=2",
            "--log_every=1",
            "--noprogress",
        )
    )
    assert "Devices: 2 CPU replicas" in said and "Trained: fixmatch" in said
    assert "Exported: run/saved_model/1" in finished(installed("export", run))
    server = installed("serve", "--saved_model=run/saved_model", "--port=0")
    try:
        address = server.stdout.readline().split()[-1]
        image = [[[0] * 3] * 8] * 8
        body = json.dumps({"instances": [image]}).encode()
        request = urllib.request.Request(f"{address}:predict", data=body)
        with urllib.request.urlopen(request, timeout=60) as response:
            (answer,) = json.load(response)["predictions"]
        assert abs(sum(answer["probabilities"]) - 1) < 1e-4
    finally:
        server.terminate()
        assert finished(server).endswith("Stopped.\n")
