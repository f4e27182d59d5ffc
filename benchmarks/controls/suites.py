"""The runs to compare: flagfiles, and the settings that differ from them."""

from benchmarks.controls.equal_time import fast, pretrained
from benchmarks.controls.suite import OFF, OWN_TEACHER, Run, Suite, mpl
from meta_pseudo_labels.learners import feedback

SAMPLED_OFF = f"{OFF}, sampled labels"
PAPER = ("release", "exact", "reinforce")
_WEIGHT = "mpl_feedback_weight"
# Other terms in place of UDA's, with their papers' weights and thresholds.
MATCHES = ("fixmatch", "flexmatch", "freematch", "adamatch")
VARIANTS = (
    "reinforce_dot_product",
    "reinforce_cosine",
    "reinforce_per_example",
)


def methods(recipe, feedbacks):
    """Every method with a recipe, flags/<recipe>_<method>.flags."""
    supervised = f"flags/{recipe}_supervised.flags"
    return {
        "supervised": Run(supervised),
        "supervised + RandAugment": Run(supervised, {"use_augment": True}),
        "pseudo labels": Run(
            supervised,
            {"method": "pseudo_labels", "teacher_labels": OWN_TEACHER},
            teacher=Run(supervised),
        ),
        "uda": Run(f"flags/{recipe}_uda.flags"),
        **{
            name: Run(f"flags/{recipe}_uda.flags", {"method": name})
            for name in MATCHES
        },
        OFF: mpl(recipe, "off"),
        SAMPLED_OFF: mpl(
            recipe, "off", {"mpl_pseudo_labels": "sampled"}, control=OFF
        ),
    } | {
        f"mpl {name}": mpl(recipe, name, control=_control_of(name))
        for name in feedbacks
    }


def _control_of(estimator):
    _, kind = feedback.resolve(estimator)
    return SAMPLED_OFF if kind == "sampled" else OFF


# Name -> the settings of a condition that may leave more for feedback to do.
# A condition that adds a weight to another comes after that other.
CONDITIONS = {
    "weight 5": {_WEIGHT: 5.0},
    "weight 20": {_WEIGHT: 20.0},
    "weight 100": {_WEIGHT: 100.0},
    "label temperature 0.5": {"mpl_label_temp": 0.5},
    "teacher without UDA": {"mpl_teacher_loss": "supervised"},
    "teacher without UDA, weight 20": {
        "mpl_teacher_loss": "supervised",
        _WEIGHT: 20.0,
    },
    "teacher on RandAugment": {"mpl_teacher_loss": "rand_augment"},
    "weak teacher": {"teacher_model_type": "mlp"},
    "10 labels": {"num_labeled": 10},
    "20 % wrong labels": {"label_noise": 0.2},
    "foreign classes": {"known_classes": 5},
    "feedback on 10 held-out labels": {"num_feedback": 10},
}


# Name -> settings that leave out, replace or add one part of the recipe
# cifar10_fast_mpl.
PARTS = {
    "no labels for the student": {"mpl_student_labeled_weight": 0.0},
    "no wait": {"mpl_student_lr_wait_steps": 0},
    "weak views with a gradient": {"uda_weak_pass": "joint"},
    # Feedback through weak views needs their gradient.
    "labels of weak views, with a gradient": dict(
        mpl_label_view="weak", uda_weak_pass="joint"
    ),
    "label temperature 0.5": {"mpl_label_temp": 0.5},
    "teacher with FreeMatch": {"mpl_teacher_loss": "freematch"},
    "teacher without UDA": {"mpl_teacher_loss": "supervised"},
    # The student learns these too, and is judged on them.
    "labeled images on RandAugment": {"mpl_teacher_loss": "rand_augment"},
    "weight 5": {_WEIGHT: 5.0},
}


def where_feedback_helps(recipe, conditions, common=None):
    """`exact`, feedback without sampling noise, and `off` under each condition.

    A weight does not affect `off`: with one, the control is that of the
    condition without it.

    Args:
      recipe: see `methods`.
      conditions: {name: settings}; see `CONDITIONS`.
      common: settings of every run, in place of the recipe's.
    """
    common = common or {}
    runs = {
        OFF: mpl(recipe, "off", common),
        "mpl exact": mpl(recipe, "exact", common, control=OFF),
    }
    for name, changes in conditions.items():
        changes = common | changes
        if _WEIGHT not in changes:
            runs[f"{OFF}, {name}"] = mpl(recipe, "off", changes, condition=name)
        unweighted = {k: v for k, v in changes.items() if k != _WEIGHT}
        off = mpl(recipe, "off", unweighted).changes
        control = next(run for run, how in runs.items() if how.changes == off)
        runs[f"mpl exact, {name}"] = mpl(
            recipe, "exact", changes, condition=name, control=control
        )
    return runs


def audit(recipe, changes):
    """The feedback of other implementations, for a teacher that it helps.

    Each has the scale that it has there: those of means over images are as
    many times weaker than `exact` as there are images.

    Args:
      recipe: see `methods`.
      changes: the settings of such a teacher.
    """

    def run(estimator, control=OFF, **given):
        return mpl(recipe, estimator, changes | given, control=control)

    audited = dict(plugins="benchmarks.audit.estimators")
    hard_off = f"{OFF}, hard labels"
    return {
        OFF: run("off", control=None),
        hard_off: run("off", mpl_pseudo_labels="hard"),
        "mpl release": run("release"),
        "mpl kekmodel": run("kekmodel", control=hard_off, **audited),
        "mpl kekmodel_average": run(
            "kekmodel_average", control=hard_off, **audited
        ),
        "mpl usb": run("usb", **audited),
        "mpl modssc": run("modssc", **audited),
        "mpl exact": run("exact"),
    }


# Left out of the suites of all methods unless asked for.
_EXTRA = (*MATCHES, *(f"mpl {name}" for name in VARIANTS))

# Feedback helps on digits under this condition. Does it on other images, and
# does that of other implementations?
_HELPFUL = "teacher on RandAugment"

SUITES = {
    "digits": Suite(
        methods("digits", (*PAPER, *VARIANTS)),
        num_labeled=(20, 40, 100),
        dataset="digits",
        extra=_EXTRA,
    ),
    "cifar10": Suite(
        methods("cifar10_small", (*PAPER, *VARIANTS)),
        num_labeled=(250, 4000),
        dataset="cifar10",
        extra=_EXTRA,
    ),
    # Their runs without a condition are those of `digits` and `cifar10`.
    "where": Suite(
        where_feedback_helps("digits", CONDITIONS),
        num_labeled=(20,),
        dataset="digits",
    ),
    "where_cifar10": Suite(
        where_feedback_helps("cifar10_small", {_HELPFUL: CONDITIONS[_HELPFUL]}),
        num_labeled=(250, 4000),
        dataset="cifar10",
    ),
    "parts": Suite(
        where_feedback_helps(
            "cifar10_fast",
            PARTS,
            {
                "num_train_steps": 600,
                "save_every": 600,
                # A quarter of the steps, as in the recipe.
                "mpl_student_lr_wait_steps": 150,
                "use_bfloat16": True,
            },
        ),
        num_labeled=(4000,),
        dataset="cifar10",
        kind="parts",
    ),
    "audit": Suite(
        audit("digits", CONDITIONS[_HELPFUL]),
        num_labeled=(20,),
        dataset="digits",
        kind="audit",
    ),
    # 15 minutes each on two idle cores without AVX-512.
    "pretrained": Suite(
        pretrained({"supervised": 1700, "uda": 370, "off": 245, "exact": 195}),
        num_labeled=(40, 250, 4000),
        dataset="cifar10",
        pretrained=True,
        equal_time=True,
        kind="pretrained",
    ),
    # Each as long as 4,450 steps of UDA, in bfloat16 with avx512_bf16, by the
    # ratios that `pace --bfloat16 --threads=1` measured; in the order of these
    # runs: 0.79, 3.14, 1, 1.40, 0.82, 1.85, 3.44, 2.48, 5.69.
    "fast": Suite(
        fast(
            {
                "supervised": 5630,
                "augmented": 1420,
                "uda": 4450,
                "fixmatch": 3180,
                "freematch": 3180,
                # Labeling 50,000 images in between costs 111 steps of UDA.
                "teacher": 2100,
                "two-stage": 2730,
                # A step in which the student waits is one of UDA.
                "off": 2720,
                "exact": 2110,
                "labels first": 710,
                "reduced off": 610,
                "reduced exact": 370,
                # Between these two: a quarter of the steps are exact.
                "reduced exact, every 4th step": 525,
            }
        ),
        num_labeled=(250, 4000),
        dataset="cifar10",
        equal_time=True,
        kind="fast",
    ),
}
