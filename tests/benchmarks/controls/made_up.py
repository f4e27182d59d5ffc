"""Rows of control runs that nobody ran."""


def row(run, *, seed=0, accuracy=0.9, **others):
    """A row of a run of 40 digits; its accuracy is that after finetuning."""
    settings = {"method": run.split()[0], "seed": seed, "lr": 0.016}
    return {
        "run": run,
        "dataset": "digits",
        "labels": 40,
        "seed": seed,
        "settings": settings | others.pop("settings", {}),
        "accuracy": 0.5,
        "accuracy_finetuned": accuracy,
        "accuracy_teacher": None,
        "train_seconds": 10.0 + seed,
    } | others
