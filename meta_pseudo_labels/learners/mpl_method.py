"""How Meta Pseudo Labels describes itself to runs: settings, rates, passes."""

import dataclasses
from typing import ClassVar

from meta_pseudo_labels import models
from meta_pseudo_labels.learners.adamatch import AdaMatchSettings, AdaMatchTerm
from meta_pseudo_labels.learners.feedback import (
    ESTIMATORS,
    PSEUDO_LABELS,
    resolve,
)
from meta_pseudo_labels.learners.fixmatch import FixMatchSettings, FixMatchTerm
from meta_pseudo_labels.learners.flexmatch import (
    FlexMatchSettings,
    FlexMatchTerm,
)
from meta_pseudo_labels.learners.freematch import (
    FreeMatchSettings,
    FreeMatchTerm,
)
from meta_pseudo_labels.learners.method import Method, Rate
from meta_pseudo_labels.learners.passes import view_passes
from meta_pseudo_labels.learners.settings import TeacherSettings
from meta_pseudo_labels.learners.uda import ConsistencySettings
from meta_pseudo_labels.utils.settings import ConfigError, Unread, setting

LABEL_VIEWS = ("strong", "weak")
NO_TERM = ("supervised", "rand_augment")
# Terms of other methods, and their settings.
TERMS = {
    FixMatchTerm: FixMatchSettings,
    FlexMatchTerm: FlexMatchSettings,
    FreeMatchTerm: FreeMatchSettings,
    AdaMatchTerm: AdaMatchSettings,
}
TEACHER_LOSSES = ("uda", *NO_TERM, *(term.name for term in TERMS))
CONSISTENCY = (
    *("uda_weight", "uda_steps", "uda_temp", "uda_threshold"),
    *("uda_distribution_alignment", "uda_alignment_decay"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MPLSettings:
    """Meta Pseudo Labels; its label settings also apply to a fixed teacher."""

    absent: ClassVar = "has no student that learns a teacher's labels."

    mpl_feedback: str = setting(
        "exact",
        "Estimator of the student's feedback. The release's default would be "
        "release, whose gradient is zero.",
        choices=ESTIMATORS,
    )
    mpl_feedback_weight: float = setting(
        1.0, "Weight of the feedback in the teacher's loss.", low=0
    )
    mpl_feedback_every: int = setting(
        1,
        "Steps from one feedback to the next, which weighs as many times as "
        "much; a step in between costs as much as with --mpl_feedback=off.",
        low=1,
    )
    mpl_pseudo_labels: str | None = setting(
        None,
        "Kind of pseudo labels; by default the estimator's own.",
        choices=(None, *PSEUDO_LABELS),
    )
    mpl_label_temp: float = setting(
        1.0,
        "Temperature of the teacher's logits when they become pseudo labels; "
        "below 1 sharpens.",
        low=1e-6,
    )
    mpl_label_view: str = setting(
        "strong",
        "Which views the teacher labels: strong, as in the release; or weak, "
        "on which it is more confident.",
        choices=LABEL_VIEWS,
    )
    mpl_student_labeled_weight: float = setting(
        0.0,
        "Weight of the labeled images' loss in the student's loss; at 0, as in "
        "the paper, it never learns from labels before it is finetuned.",
        low=0,
    )
    mpl_teacher_loss: str = setting(
        "uda",
        "What the teacher learns from besides the feedback: uda, labels and "
        "consistency; supervised, labels alone; rand_augment, strong views of "
        "the labeled images (on which the student is then judged too); or "
        "another method, labels and its consistency term.",
        choices=TEACHER_LOSSES,
    )
    mpl_baseline_decay: float = setting(
        0.99,
        "Decay of the feedback's moving average; 1 keeps its first value.",
        low=1e-6,
        high=1,
    )
    mpl_baseline_start: float = setting(
        0.0,
        "First value of the feedback's moving average: a change (new - old) "
        "in what the estimator measures.",
    )
    mpl_update_teacher_moments: bool = setting(
        True,
        "Keep moving averages of the teacher's batch norm. The release does "
        "not, so its teacher is useless in inference mode.",
    )
    mpl_student_lr: float = setting(
        0.1, "Peak learning rate of the student, per 256 labeled images.", low=0
    )
    mpl_student_lr_wait_steps: int = setting(
        500, "Steps before the student starts to learn.", low=0
    )
    mpl_skip_wait: bool = setting(
        False,
        "Skip the student's part of a step while it waits, so that the step "
        "costs as much as one of uda. The release computes it, and meanwhile "
        "the student's batch norm and the feedback's baselines move.",
    )
    mpl_student_lr_warmup_steps: int = setting(
        5_000, "Warm-up of the student after its wait, in steps.", low=0
    )
    mpl_teacher_lr: float = setting(
        0.1, "Peak learning rate of the teacher, per 256 labeled images.", low=0
    )
    mpl_teacher_lr_warmup_steps: int = setting(
        5_000, "Warm-up of the teacher, in steps.", low=0
    )


def term_type(settings):
    """The type of the teacher's consistency term; None if it is not in `TERMS`.

    Args:
      settings: a `Config`.
    """
    if settings.teacher_labels:
        return None
    names = {term.name: term for term in TERMS}
    return names.get(settings.mpl_teacher_loss)


def _not_that_method(term, group):
    """The rule for runs that ask for another term than this."""
    return Unread(
        tuple(field.name for field in dataclasses.fields(group)),
        "--method={method} " + group.absent,
        when=lambda settings: (
            settings["mpl_teacher_loss"] != term.name
            or bool(settings["teacher_labels"])
        ),
    )


UNREAD = (
    Unread(
        ("mpl_skip_wait",),
        "with --mpl_student_lr_wait_steps=0 the student does not wait.",
        when=lambda settings: settings["mpl_student_lr_wait_steps"] == 0,
    ),
    Unread(
        ("mpl_feedback_weight", "mpl_feedback_every"),
        "with --mpl_feedback=off there is no feedback.",
        when=lambda settings: settings["mpl_feedback"] == "off",
    ),
    Unread(
        ("mpl_baseline_",),
        "--mpl_feedback={mpl_feedback} uses no baseline; only the logged "
        "average has one.",
        when=lambda settings: settings["mpl_feedback"] in ("exact", "off"),
    ),
    Unread(
        ("lr", "num_warmup_steps"),
        "--method=mpl has rates of its own: --mpl_student_lr and "
        "--mpl_teacher_lr, and their ..._wait_steps and ..._warmup_steps.",
    ),
    Unread(
        (*CONSISTENCY, "uda_weak_pass"),
        "the small teacher on top of --teacher_labels has no consistency term.",
        when=lambda settings: bool(settings["teacher_labels"]),
    ),
    Unread(
        (*CONSISTENCY, "uda_weak_pass"),
        "with --mpl_teacher_loss={mpl_teacher_loss} the teacher has no "
        "consistency term.",
        when=lambda settings: settings["mpl_teacher_loss"] in NO_TERM,
    ),
    Unread(
        CONSISTENCY,
        "the teacher's consistency term is that of {mpl_teacher_loss}.",
        when=lambda settings: settings["mpl_teacher_loss"] != "uda",
    ),
    *(_not_that_method(*pair) for pair in TERMS.items()),
    Unread(
        ("adamatch_interpolate",),
        "the teacher's labeled images have no pass of their own.",
    ),
)


class MPLMethod(Method):
    """The part of `MetaPseudoLabels` that describes the method."""

    has_feedback = True
    settings = (
        MPLSettings,
        TeacherSettings,
        ConsistencySettings,
        *TERMS.values(),
    )
    unread = UNREAD

    @classmethod
    def from_settings(cls, settings, networks, **common):
        common |= dict(
            feedback=settings.mpl_feedback,
            feedback_weight=settings.mpl_feedback_weight,
            feedback_every=settings.mpl_feedback_every,
            pseudo_labels=settings.mpl_pseudo_labels,
            label_temperature=settings.mpl_label_temp,
            label_view=settings.mpl_label_view,
            student_labeled_weight=settings.mpl_student_labeled_weight,
            student_wait_steps=(
                settings.mpl_student_lr_wait_steps
                if settings.mpl_skip_wait
                else 0
            ),
            baseline_decay=settings.mpl_baseline_decay,
            baseline_start=settings.mpl_baseline_start,
            update_teacher_moments=settings.mpl_update_teacher_moments,
        )
        student = networks.student()
        if settings.teacher_labels:
            # Imported here, as its module imports this one.
            from meta_pseudo_labels.learners.reduced import ReducedMPL

            return ReducedMPL(student, networks.reduced_teacher(), **common)
        uda = settings.uda() if settings.mpl_teacher_loss == "uda" else None
        if term := term_type(settings):
            uda = term(**term.arguments(settings, networks))
        if uda is not None:  # Otherwise no weak view passes.
            common["weak_pass"] = settings.uda_weak_pass
        return cls(student, networks.teacher(), uda=uda, **common)

    @classmethod
    def check_settings(cls, settings):
        resolve(settings.mpl_feedback, settings.mpl_pseudo_labels)
        if settings.teacher_labels and settings.method != "mpl":
            raise ConfigError(
                f"--teacher_labels: Reduced MPL is a part of --method=mpl; "
                f"--method={settings.method}, which changes MPL, would be "
                "ignored. Leave one of them out."
            )
        if settings.mpl_label_view == "weak" and (
            settings.teacher_labels or settings.mpl_teacher_loss in NO_TERM
        ):
            raise ConfigError(
                "--mpl_label_view=weak: this teacher does not see weak views; "
                "leave it out, or use --mpl_teacher_loss=uda without "
                "--teacher_labels."
            )
        if (settings.mpl_label_view, settings.uda_weak_pass) == (
            "weak",
            "apart",
        ):
            raise ConfigError(
                "--uda_weak_pass=apart: with --mpl_label_view=weak the "
                "feedback goes back through the weak views; leave one out."
            )
        small = settings.teacher_model_type or models.REDUCED_TEACHER
        if settings.teacher_labels and not models.mlp_hidden_sizes(small):
            raise ConfigError(
                f"--teacher_model_type={small}: with --teacher_labels the "
                "teacher is a small perceptron on top of these; give one such "
                f"as {models.REDUCED_TEACHER}, or leave it out."
            )

    @classmethod
    def keys(cls, settings):
        return getattr(term_type(settings), "batch_keys", cls.batch_keys)

    @classmethod
    def augments_labeled(cls, settings):
        return settings.mpl_teacher_loss == "rand_augment"

    @classmethod
    def teacher_type(cls, settings):
        if settings.teacher_labels:  # It sees distributions.
            return None
        return settings.teacher_model_type or settings.model_type

    @classmethod
    def rates(cls, settings):  # It ignores num_warmup_steps (quirk 21).
        return [
            Rate(
                settings.mpl_student_lr,
                wait_steps=settings.mpl_student_lr_wait_steps,
                warmup_steps=settings.mpl_student_lr_warmup_steps,
            ),
            Rate(
                settings.mpl_teacher_lr,
                warmup_steps=settings.mpl_teacher_lr_warmup_steps,
            ),
        ]

    @classmethod
    def passes(cls, settings):
        passes = {1, 1 + settings.uda_data}
        if settings.mpl_teacher_loss not in NO_TERM:
            apart = settings.uda_weak_pass == "apart"
            passes |= view_passes(settings, apart=apart)
        if settings.mpl_student_labeled_weight and settings.num_feedback:
            passes.add(2 + settings.uda_data)
        return passes


def check_label_view(view, term, weak_pass):
    """Raises ValueError for a view whose labels no feedback can reach."""
    if view not in LABEL_VIEWS:
        raise ValueError(
            f"label_view is {view!r}; choose one of {', '.join(LABEL_VIEWS)}."
        )
    if view == "weak" and term is None:
        raise ValueError(
            'label_view is "weak", but this teacher has no consistency term '
            "and sees no weak views; give uda, or leave label_view out."
        )
    if (view, weak_pass) == ("weak", "apart"):
        raise ValueError(
            'label_view is "weak" and weak_pass "apart": the feedback goes '
            "back through the views that are labeled; leave one out."
        )
