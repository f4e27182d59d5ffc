"""The result of loading the release's variables."""

import dataclasses

from meta_pseudo_labels.utils.checkpoint_files import CheckpointError

_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoadReport:
    """Release names, grouped by what became of them. Its text is a summary.

    Attributes:
      matched: set from the source.
      missing: ours, but not in the source; they kept their values.
      left_over: in the source, but not used here.
      mismatched: (name, shape in the source, our shape); not set.
    """

    matched: tuple[str, ...]
    missing: tuple[str, ...]
    left_over: tuple[str, ...]
    mismatched: tuple[tuple[str, tuple, tuple], ...]

    def check(self, source_name, *, required, skip_mismatched):
        """Raises CheckpointError if the source must not be used.

        Args:
          source_name: for the message.
          required: names that the source must have.
          skip_mismatched: whether variables of other shapes are left out.
        """
        if self.mismatched and not skip_mismatched:
            raise CheckpointError(
                f"{source_name} is from another network: "
                f"{_listed(_disagreement(*m) for m in self.mismatched)}. Give "
                "the model_type and the number of classes that it was trained "
                "with."
            )
        lacking = [name for name in self.missing if name in required]
        if lacking:
            raise CheckpointError(
                f"{source_name} lacks {len(lacking)} of {len(required)} "
                f"variables of this network: {_listed(lacking)}. It has "
                f"{_listed(self.left_over) or 'no others'}. Give the method "
                "and model_type that it was trained with."
            )

    def __str__(self):
        lines = [f"{len(self.matched)} variables read."]
        for title, names in (
            ("Not in the source, kept as they were", self.missing),
            ("Left over", self.left_over),
            (
                "Other shapes, kept as they were",
                [_disagreement(*m) for m in self.mismatched],
            ),
        ):
            if names:
                lines.append(f"{title}, {len(names)}: {_listed(names)}.")
        return "\n".join(lines)


def _disagreement(name, theirs, ours):
    return f"{name} has shape {list(theirs)}, here {list(ours)}"


def _listed(names):
    """The first names, and how many more there are."""
    names = list(names)
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
