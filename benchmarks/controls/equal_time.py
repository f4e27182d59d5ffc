"""Runs that take equal time, each with a number of steps of its own."""

from benchmarks.controls.suite import OFF, OWN_TEACHER, Run, mpl
from benchmarks.controls.weights import ANY_WEIGHTS, PRETRAINED


def pretrained(steps):
    """Finetuning, UDA and MPL from ImageNet's weights, at equal time.

    Args:
      steps: {method, or estimator of MPL: steps that take equal time}.
    """
    # Half the recipes' batches and twice their rate per image: when there is
    # time for so few steps, more and smaller ones are better.
    halved = PRETRAINED | dict(train_batch_size=16)
    rates = dict(
        mpl_student_lr=0.016, mpl_teacher_lr=0.016, teacher_weights=ANY_WEIGHTS
    )
    runs = {
        "supervised": Run(
            "flags/folders_finetune.flags",
            PRETRAINED | dict(num_train_steps=steps["supervised"]),
        ),
        "uda": Run(
            "flags/folders_uda.flags",
            halved | dict(num_train_steps=steps["uda"], lr=0.016),
        ),
    }
    for name in ("off", "exact"):
        count = dict(num_train_steps=steps[name])
        control = OFF if name != "off" else None
        runs[f"mpl {name}"] = mpl(
            "folders", name, halved | rates | count, control=control
        )
    return runs


def fast(steps):
    """The recipes cifar10_fast at equal time.

    Args:
      steps: {method, "teacher" and "two-stage" for two stages that begin with
        UDA, estimator of MPL, or "labels first" and "reduced " with an
        estimator, and how often it is asked, for two stages that begin with
        the labels: steps that take equal time; two stages do so together}.
    """
    uda = "flags/cifar10_fast_uda.flags"

    def during(name, **changes):
        # Accuracies along the way would take time.
        length = {"num_train_steps": steps[name], "save_every": steps[name]}
        return length | {"use_bfloat16": True} | changes

    runs = {
        # As many images per step as in a step of UDA.
        "supervised": Run(
            uda, during("supervised", method="supervised", train_batch_size=128)
        ),
        "supervised + RandAugment": Run(
            "flags/cifar10_fast_augmented.flags", during("augmented")
        ),
        "uda": Run(uda, during("uda")),
        "fixmatch": Run(uda, during("fixmatch", method="fixmatch")),
        "freematch": Run(
            "flags/cifar10_fast_freematch.flags", during("freematch")
        ),
        "two-stage": Run(
            uda,
            during(
                "two-stage",
                method="pseudo_labels",
                mpl_pseudo_labels="soft",
                teacher_labels=OWN_TEACHER,
            ),
            teacher=Run(uda, during("teacher")),
        ),
    }
    for name in ("off", "exact"):
        # The student waits for a quarter of the time.
        wait = during(name, mpl_student_lr_wait_steps=steps[name] // 4)
        control = OFF if name != "off" else None
        runs[f"mpl {name}"] = mpl("cifar10_fast", name, wait, control=control)
    for name, every in (("off", 1), ("exact", 1), ("exact", 4)):
        rest = f", every {every}th step" if every > 1 else ""
        runs[f"mpl {name}, two stages{rest}"] = Run(
            "flags/cifar10_fast_reduced.flags",
            during(
                f"reduced {name}{rest}",
                teacher_labels=OWN_TEACHER,
                mpl_feedback=name,
                mpl_feedback_every=every,
            ),
            feedback=name,
            control=f"{OFF}, two stages" if name != "off" else None,
            teacher=Run(
                "flags/cifar10_fast_augmented.flags", during("labels first")
            ),
        )
    return runs
