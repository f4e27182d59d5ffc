"""Goes on with a run that an earlier revision began, and compares the rest.

    python -m tests.faults.continue_revision --revision 8ceb65d

A worktree of that revision trains digits to the end. Of its run all but the
checkpoint of half the way is copied, this revision goes on from there, and
every variable of the last checkpoints must be the same, bit for bit. Needs git
and the history; takes a minute or two for each network.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

from tests.faults import runs

NETWORKS = {
    "mlp": ("--model_type=mlp", "--mpl_feedback=exact"),
    "wrn-10-1": ("--model_type=wrn-10-1", "--mpl_feedback=reinforce"),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--revision", default="8ceb65d")
    parser.add_argument("--steps", type=int, default=40)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        tree = folder / "tree"
        git = ["git", "-C", str(runs.ROOT), "worktree"]
        subprocess.run(
            [*git, "add", "--detach", "--quiet", tree, arguments.revision],
            check=True,
        )
        try:
            failed = [
                name
                for name, flags in NETWORKS.items()
                if not same(name, flags, tree, folder, arguments.steps)
            ]
        finally:
            subprocess.run([*git, "remove", "--force", tree], check=True)
    sys.exit(1 if failed else 0)


def same(name, flags, tree, folder, steps):
    """Whether the rest is the same, which it prints."""
    settings = (
        *runs.SETTINGS,
        *flags,
        f"--num_train_steps={steps}",
        "--max_to_keep=1000",
    )
    whole, begun = folder / f"{name}-whole", folder / f"{name}-begun"
    train(tree, settings, whole)
    shutil.copytree(whole, begun)
    (begun / "done").unlink()
    kept = []
    for path in (begun / "checkpoints").glob("step-*"):
        step = int(path.name.split(".")[0].split("-")[1])
        if step > steps // 2:
            path.unlink()
        else:
            kept.append(step)
    train(runs.ROOT, settings, begun)
    differing = runs.differences(begun, whole)
    print(
        f"{name}: on from step {max(kept)} of {steps}, "
        f"{len(runs.final_weights(whole))} variables, "
        f"{len(differing)} differ {differing[:3] or ''}",
        flush=True,
    )
    return not differing


def train(tree, settings, output_dir):
    subprocess.run(
        [sys.executable, "main.py", *settings, f"--output_dir={output_dir}"],
        cwd=tree,
        check=True,
        stdout=subprocess.DEVNULL,
    )


if __name__ == "__main__":
    main()
