"""Settings without effect: what a run does not read, and why.

One table for the command line, which warns of such flags, and for the control
runs, whose rows are of one recipe whatever these settings are.
"""

import collections.abc
import dataclasses


@dataclasses.dataclass(frozen=True)
class Unread:
    """Settings that nothing of a run depends on.

    Attributes:
      names: of the settings; one that ends with "_" is the beginning of many.
      when: tells from all settings, by name, whether this is such a run.
      why: the rest of "--lr has no effect: "; settings stand in braces.
      but: beginnings or names as in `names`, of those that are read after all.
    """

    names: tuple[str, ...]
    when: collections.abc.Callable[[collections.abc.Mapping], bool]
    why: str
    but: tuple[str, ...] = ()

    def covers(self, name):
        return _among(name, self.names) and not _among(name, self.but)


def _among(name, patterns):
    return any(
        name.startswith(pattern) if pattern.endswith("_") else name == pattern
        for pattern in patterns
    )


def _method(*methods):
    return lambda settings: settings["method"] in methods


def _is_reduced(settings):
    return settings["method"] == "mpl" and bool(settings["teacher_labels"])


_CONSISTENCY = ("uda_weight", "uda_steps", "uda_temp", "uda_threshold")

UNREAD = (
    Unread(
        ("mpl_",),
        _method("supervised", "uda"),
        "--method={method} has no student that learns a teacher's labels.",
    ),
    Unread(
        ("mpl_",),
        _method("pseudo_labels"),
        "--method=pseudo_labels learns from a fixed teacher, which hears no "
        "feedback.",
        but=("mpl_pseudo_labels", "mpl_label_temp"),
    ),
    Unread(
        ("mpl_label_temp",),
        lambda settings: (
            settings["method"] == "pseudo_labels"
            and settings["mpl_pseudo_labels"] in (None, "hard")
        ),
        "the pseudo labels are hard ones, the same at every temperature.",
    ),
    Unread(
        ("mpl_feedback_weight",),
        lambda settings: (
            settings["method"] == "mpl" and settings["mpl_feedback"] == "off"
        ),
        "with --mpl_feedback=off there is no feedback to weigh.",
    ),
    Unread(
        ("mpl_baseline_",),
        lambda settings: (
            settings["method"] == "mpl"
            and settings["mpl_feedback"] in ("exact", "off")
        ),
        "--mpl_feedback={mpl_feedback} steers by no baseline; the average that "
        "is logged has one.",
    ),
    Unread(
        ("lr", "num_warmup_steps"),
        _method("mpl"),
        "--method=mpl has rates of its own: --mpl_student_lr and "
        "--mpl_teacher_lr, and their ..._wait_steps and ..._warmup_steps.",
    ),
    Unread(
        ("teacher_",),
        _method("supervised", "uda"),
        "--method={method} trains no teacher.",
    ),
    Unread(
        ("teacher_model_type",),
        _method("pseudo_labels"),
        "of the fixed teacher only its labels are read.",
    ),
    Unread(
        ("augment_cutout",),
        lambda settings: settings["dataset"].startswith("imagenet2012"),
        "strong views of {dataset} have no cutout, as the release's.",
    ),
    Unread(
        ("uda_",),
        _method("supervised"),
        "--method=supervised learns from labeled images alone.",
    ),
    Unread(
        _CONSISTENCY,
        _method("pseudo_labels"),
        "--method=pseudo_labels has no consistency term.",
    ),
    Unread(
        _CONSISTENCY,
        _is_reduced,
        "the small teacher on top of --teacher_labels has no consistency term.",
    ),
    Unread(
        _CONSISTENCY,
        lambda settings: (
            settings["method"] == "mpl"
            and settings["mpl_teacher_loss"] != "uda"
        ),
        "with --mpl_teacher_loss={mpl_teacher_loss} the teacher has no "
        "consistency term.",
    ),
    Unread(
        ("use_augment",),
        lambda settings: settings["method"] != "supervised",
        "only --method=supervised reads it; see --mpl_teacher_loss for the "
        "teacher of mpl.",
    ),
    Unread(
        ("augment_",),
        lambda settings: (
            settings["method"] == "supervised" and not settings["use_augment"]
        ),
        "without --use_augment supervised training has no strong views.",
    ),
    Unread(
        ("rmsprop_",),
        lambda settings: settings["optim_type"] != "rmsprop",
        "the optimizer is --optim_type={optim_type}.",
    ),
    Unread(
        ("lr_decay_rate", "num_decay_steps"),
        lambda settings: settings["lr_decay_type"] != "exponential",
        "with --lr_decay_type={lr_decay_type} rates do not fall in drops.",
    ),
    Unread(
        ("ema_start",),
        lambda settings: not settings["ema_decay"],
        "--ema_decay=0 keeps no moving average.",
    ),
    Unread(
        ("finetune_eval_every",),
        lambda settings: not settings["finetune_patience"],
        "without --finetune_patience finetuning does not evaluate.",
    ),
    Unread(
        ("inference_",),
        lambda settings: settings["task_mode"] == "train",
        "only --task_mode=inference reads it.",
    ),
    Unread(
        ("replicas_per_worker",),
        lambda settings: settings["distribution"] in ("one_device", "tpu"),
        "--distribution={distribution} has no replicas to be counted.",
    ),
    Unread(
        ("use_tpu", "master", "num_cores_per_replica"),
        lambda settings: settings["distribution"] not in ("auto", "tpu"),
        "--distribution={distribution} uses no TPU.",
    ),
    Unread(
        ("num_cores_per_replica",),
        lambda settings: (
            not (
                settings["distribution"] == "tpu"
                or settings["use_tpu"]
                or settings["master"]
            )
        ),
        "only a TPU has it, which --use_tpu, --master or --distribution=tpu "
        "asks for.",
    ),
)


def unread_settings(settings):
    """The settings that nothing in a run depends on.

    Args:
      settings: all fields of a `Config` by name, as `dataclasses.asdict` gives
        them; other names may be among them.

    Returns:
      A dict from the name of each such setting to the reason, a clause.
    """
    rules = [rule for rule in UNREAD if rule.when(settings)]
    return {
        name: rule.why.format_map(settings)
        for rule in reversed(rules)  # So that the first of them counts.
        for name in settings
        if rule.covers(name)
    }
