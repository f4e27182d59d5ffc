"""The registry of methods, and how each describes itself.

Its settings, its passes, what it reads.

All that other code asks about a method is asked here, so that a new method is
one file: command line, checks, warnings, data and devices derive from it.
"""

from typing import NamedTuple

from meta_pseudo_labels.utils.registry import Registry
from meta_pseudo_labels.utils.settings import ConfigError

# By the names that --method accepts.
LEARNERS = Registry(
    "method",
    package="meta_pseudo_labels.learners",
    without=("build", "callbacks", "finetuning"),  # Loaded when used.
)
register = LEARNERS.register


class Rate(NamedTuple):
    """The learning rate of one optimizer, as in the settings.

    Attributes:
      peak: highest rate, per 256 labeled images.
      wait_steps: steps at rate 0, before anything else.
      warmup_steps: steps from 0 to the peak.
    """

    peak: float
    wait_steps: int = 0
    warmup_steps: int = 0


class Method:
    """The part of a `Learner` class that describes the method.

    Attributes:
      settings: dataclasses whose fields the method reads, besides those that
        all methods read; they become fields of `Config`, and flags. One may
        have `absent`, the rest of "--method=... " for methods that do not read
        it, and `unread`, `Unread` rules.
      unread: `Unread` rules for other settings that the method does not read.
      batch_keys: what a batch must hold, see `Learner`.
      has_feedback: whether a teacher learns from how its student does, which
        `diagnose` can then examine.
    """

    settings = ()
    unread = ()
    batch_keys = ("labeled", "labels", "weak", "strong")
    has_feedback = False

    @classmethod
    def from_settings(cls, settings, networks, **common):
        """The learner that settings ask for, with fresh networks.

        Args:
          settings: a `Config`, or the part of one that is needed.
          networks: `build.Networks`, which builds them.
          **common: arguments of every learner.
        """
        return cls(networks.student(), **common)

    @classmethod
    def check_settings(cls, settings):
        """Raises ValueError for settings that do not fit the method."""
        if settings.teacher_labels:
            raise ConfigError(
                f"--teacher_labels: --method={settings.method} has no teacher; "
                "leave it out, or use another --method."
            )

    @classmethod
    def reads_unlabeled(cls):
        """Whether batches hold unlabeled images."""
        return not {"weak", "strong"}.isdisjoint(cls.batch_keys)

    @classmethod
    def keys(cls, settings):
        """The `batch_keys` of a run with these settings."""
        return cls.batch_keys

    @classmethod
    def augments_labeled(cls, settings):
        """Whether labeled images get strong views."""
        return False

    @classmethod
    def teacher_type(cls, settings):
        """Model type of a teacher that sees images; None without one."""
        return None

    @classmethod
    def rates(cls, settings):
        """A `Rate` for each optimizer: the student's first."""
        return [Rate(settings.lr, warmup_steps=settings.num_warmup_steps)]

    @classmethod
    def passes(cls, settings):
        """Images of each training pass, as multiples of the labeled batch.

        Batch norm uses them to form its groups of replicas.
        """
        views = sum(key in cls.batch_keys for key in ("weak", "strong"))
        return {1 + views * settings.uda_data}
