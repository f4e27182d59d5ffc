"""Writes what earlier_test.py reads, with the code of an earlier revision.

    git worktree add ../old 8ceb65d && cd ../old
    python $OLDPWD/tests/files/write.py $OLDPWD/tests/files/8ceb65d

It uses public names alone, which every revision has.
"""

import pathlib
import shutil
import sys

sys.path.insert(0, str(pathlib.Path.cwd()))

import keras  # noqa: E402
import numpy as np  # noqa: E402

import meta_pseudo_labels as mpl  # noqa: E402


def images(count, seed):
    random = np.random.default_rng(seed)
    return random.normal(size=(count, 8, 8, 3)).astype("float32")


def learner():
    """Meta Pseudo Labels with all that is saved: averages, slots, rates."""
    keras.utils.set_random_seed(0)
    networks = [
        keras.Sequential(
            [
                keras.Input((8, 8, 3)),
                keras.layers.Conv2D(4, 3),
                mpl.models.BatchNorm(),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3),
            ],
            name=name,
        )
        for name in ("student", "teacher")
    ]
    made = mpl.MetaPseudoLabels(
        *networks,
        feedback="reinforce",
        uda=mpl.UDASettings(weight=2.0, ramp_steps=3),
        ema_decay=0.9,
    )
    rates = [
        mpl.WaitWarmupDecay(0.1, decay="cosine", num_train_steps=20)
        for _ in range(2)
    ]
    made.compile(*[mpl.Momentum(r, nesterov=True) for r in rates])
    for seed in range(2):
        made.train_step(batch(seed))
    return made


def batch(seed):
    return {
        "labeled": images(4, seed),
        "labels": np.arange(4) % 3,
        "weak": images(6, seed + 10),
        "strong": images(6, seed + 20),
    }


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    made = learner()
    made.save(folder / "learner.keras")
    answers = {"before": np.asarray(made(images(5, 99)))}
    made.train_step(batch(7))  # The next step too is that of then.
    answers["after"] = np.asarray(made(images(5, 99)))
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    config = mpl.Config(
        output_dir=str(run),
        model_type="mlp-3-16",
        num_train_steps=4,
        save_every=2,
        log_every=1,
        train_batch_size=4,
        ema_decay=0.9,
        mpl_student_lr_wait_steps=0,
        mpl_student_lr_warmup_steps=1,
        mpl_teacher_lr_warmup_steps=1,
        progress=False,
    )
    mpl.Experiment(config).train()
    weights = mpl.Experiment(config).trained_learner().get_weights()
    answers |= {f"run/{i}": weight for i, weight in enumerate(weights)}
    # As if it had been cut off after its first checkpoint.
    for path in run.rglob("*"):
        if path.name.startswith("step-4"):
            path.unlink()
    (run / "done").unlink()
    hparams = (run / "hparams.json").read_text().replace(str(run), "run")
    (run / "hparams.json").write_text(hparams)
    for name in ("events", "metrics.jsonl"):
        path = run / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    np.savez_compressed(folder / "answers.npz", **answers)


if __name__ == "__main__":
    write(pathlib.Path(sys.argv[1]))
