"""Flags of the release that have no effect, neither there nor here.

Its old scripts set them, so they are accepted; a warning says that they have
no effect. Types and defaults are the release's (`flag_utils.py`).
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class IdleFlag:
    """A flag without effect.

    Attributes:
      name: as on the command line.
      value_type: bool, int, float or str.
      default: the release's; None for no value.
      help: what it seems to be for, if no other flag tells.
      instead: the flag that does this job, if there is one.
      undefined: whether the release reads or prints it without defining it.
      why: why it has no effect.
    """

    name: str
    value_type: type
    default: bool | int | float | str | None
    help: str
    instead: str | None = None
    undefined: bool = False
    why: str = "the release never read it either"

    @property
    def full_help(self):
        """The help with its mark, and the flag to use instead."""
        mark = (
            "(Undefined in the release.)"
            if self.undefined
            else "(Never read by the release.)"
        )
        instead = f" Use --{self.instead}." if self.instead else ""
        return f"{self.help}{instead} {mark}"

    def warning(self, flag):
        """What to tell the user who set it, or None; `flag` is absl's."""
        as_if_unset = self.undefined and flag.value == self.default
        if not flag.present or as_if_unset:
            return None
        instead = f"; use --{self.instead}" if self.instead else ""
        return f"--{self.name} has no effect: {self.why}{instead}."


def _flag(name, default, help, **more):
    """A flag whose default gives its type; a type means no default value."""
    if isinstance(default, type):
        return IdleFlag(name, default, None, help, **more)
    return IdleFlag(name, type(default), default, help, **more)


# Flags whose job another flag does.
_RENAMED = {
    "teacher_lr": (0.1, "mpl_teacher_lr", "The teacher's learning rate."),
    "teacher_base_lr": (
        1e-3,
        "mpl_teacher_lr",
        "The teacher's learning rate before scaling.",
    ),
    "teacher_grad_bound": (
        20.0,
        "grad_bound",
        "Bound on the teacher's gradient.",
    ),
    "teacher_weight_decay": (
        1e-4,
        "weight_decay",
        "Weight decay of the teacher.",
    ),
    "teacher_grad_dot_moving_average_decay": (
        0.99,
        "mpl_baseline_decay",
        "Decay of the average of the gradients' dot product.",
    ),
    "uda_warmup_steps": (2000, "uda_steps", "Steps until the UDA loss counts."),
    "mpl_temp": (0.75, "uda_temp", "Temperature of the teacher's labels."),
    "mpl_threshold": (
        0.6,
        "uda_threshold",
        "Confidence from which a label counts.",
    ),
    "mpl_student_wait_steps": (
        2500,
        "mpl_student_lr_wait_steps",
        "Steps until the student learns.",
    ),
    "mpl_teacher_checkpoint": (
        str,
        "load_checkpoint",
        "Checkpoint that the teacher starts from.",
    ),
    "mpl_student_checkpoint": (
        str,
        "load_checkpoint",
        "Checkpoint that the student starts from.",
    ),
}

_NOTHING_DOES_IT = {
    "tpu_topology": ("", "Shape of the TPU slice, such as 2x2."),
    "num_infeed_threads": (
        4,
        "Threads that feed the TPU; tf.data has its own.",
    ),
    "num_shards_per_worker": (int, "Files that one worker reads."),
    "dataset_service_bns_prefix": (str, "Address of the service's workers."),
    "teacher_eps": (1e-7, "Small number in the teacher's optimizer or logs."),
    "teacher_temperature": (0.5, "Temperature of the teacher's softmax."),
    "teacher_init_range": (0.1, "Half the range of the teacher's weights."),
    "teacher_one_hot_w": (
        0.9,
        "Weight of one-hot labels beside the teacher's.",
    ),
    "teacher_num_samples": (10, "Pseudo labels that are drawn per image."),
    "mpl_dot_product_bound": (0.1, "Bound on the feedback, which has none."),
}

_UNDEFINED = {
    "use_vizier": (
        False,
        "there is no search, and every checkpoint is evaluated anyway",
    ),
    "tpu_platform": (str, "no code of the release reads it"),
}

IDLE_FLAGS = (
    *(
        _flag(name, default, help, instead=instead)
        for name, (default, instead, help) in _RENAMED.items()
    ),
    *(_flag(name, *row) for name, row in _NOTHING_DOES_IT.items()),
    *(
        _flag(name, default, f"Without effect: {why}.", undefined=True, why=why)
        for name, (default, why) in _UNDEFINED.items()
    ),
)
