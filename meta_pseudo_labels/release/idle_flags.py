"""Flags of the release that steer nothing, here as there.

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
      help: what it seems to be for.
      instead: the flag that does this job, if there is one.
      undefined: whether the release reads or prints it, but has no such flag.
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
        """What to tell who set it, or None; `flag` is its absl flag."""
        as_if_unset = self.undefined and flag.value == self.default
        if not flag.present or as_if_unset:
            return None
        instead = f"; use --{self.instead}" if self.instead else ""
        return f"--{self.name} has no effect: {self.why}{instead}."


_NEVER_READ = (
    # The machine.
    IdleFlag("tpu_topology", str, "", "Shape of the TPU slice, such as 2x2."),
    IdleFlag(
        "num_infeed_threads",
        int,
        4,
        "Threads that feed the TPU; tf.data chooses them itself.",
    ),
    IdleFlag(
        "num_shards_per_worker", int, None, "Files that one worker reads."
    ),
    IdleFlag(
        "dataset_service_bns_prefix",
        str,
        None,
        "Address of the tf.data service's workers.",
    ),
    # The teacher, under names of an earlier version.
    IdleFlag(
        "teacher_lr",
        float,
        0.1,
        "Learning rate of the teacher.",
        instead="mpl_teacher_lr",
    ),
    IdleFlag(
        "teacher_base_lr",
        float,
        1e-3,
        "Learning rate of the teacher before scaling.",
        instead="mpl_teacher_lr",
    ),
    IdleFlag(
        "teacher_grad_bound",
        float,
        20.0,
        "Bound on the norm of the teacher's gradient.",
        instead="grad_bound",
    ),
    IdleFlag(
        "teacher_eps",
        float,
        1e-7,
        "Small number in the teacher's optimizer or its logarithms.",
    ),
    IdleFlag(
        "teacher_weight_decay",
        float,
        1e-4,
        "Weight decay of the teacher.",
        instead="weight_decay",
    ),
    IdleFlag(
        "teacher_temperature",
        float,
        0.5,
        "Temperature of the teacher's softmax.",
    ),
    IdleFlag(
        "teacher_grad_dot_moving_average_decay",
        float,
        0.99,
        "Decay of the moving average of the gradients' dot product.",
        instead="mpl_baseline_decay",
    ),
    IdleFlag(
        "teacher_init_range",
        float,
        0.1,
        "Half the range of the teacher's initial weights.",
    ),
    IdleFlag(
        "teacher_one_hot_w",
        float,
        0.9,
        "Weight of the one-hot label beside the teacher's.",
    ),
    IdleFlag(
        "teacher_num_samples",
        int,
        10,
        "Pseudo labels that the teacher draws for an image.",
    ),
    # The methods.
    IdleFlag(
        "uda_warmup_steps",
        int,
        2000,
        "Steps before the UDA loss counts.",
        instead="uda_steps",
    ),
    IdleFlag(
        "mpl_temp",
        float,
        0.75,
        "Temperature of the teacher's labels in MPL.",
        instead="uda_temp",
    ),
    IdleFlag(
        "mpl_threshold",
        float,
        0.6,
        "Confidence from which a pseudo label counts in MPL.",
        instead="uda_threshold",
    ),
    IdleFlag(
        "mpl_dot_product_bound",
        float,
        0.1,
        "Bound on the size of the feedback, which is not clipped.",
    ),
    IdleFlag(
        "mpl_student_wait_steps",
        int,
        2500,
        "Steps before the student learns.",
        instead="mpl_student_lr_wait_steps",
    ),
    IdleFlag(
        "mpl_teacher_checkpoint",
        str,
        None,
        "Checkpoint that the teacher begins from.",
        instead="load_checkpoint",
    ),
    IdleFlag(
        "mpl_student_checkpoint",
        str,
        None,
        "Checkpoint that the student begins from.",
        instead="load_checkpoint",
    ),
)

_UNDEFINED = (
    IdleFlag(
        "use_vizier",
        bool,
        False,
        "Evaluate while training, for a search of settings. Every checkpoint "
        "is evaluated anyway; there is no search.",
        undefined=True,
        why="there is no search, and every checkpoint is evaluated anyway",
    ),
    IdleFlag(
        "tpu_platform",
        str,
        None,
        "Kind of TPU. No code of the release reads it.",
        undefined=True,
        why="no code of the release reads it",
    ),
)

IDLE_FLAGS = _NEVER_READ + _UNDEFINED
