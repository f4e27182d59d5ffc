"""What the feedback of a trained run is worth, estimator by estimator.

    found = diagnose(learner, batches, held_out=(images, labels))
    print(as_text(found))
    draw(found, "diagnosis.png")

Nothing trains: every probe starts at the same weights and leaves them alone.
"""

from meta_pseudo_labels.evaluation.diagnosis.figure import draw
from meta_pseudo_labels.evaluation.diagnosis.measure import diagnose
from meta_pseudo_labels.evaluation.diagnosis.summary import as_text

__all__ = ["as_text", "diagnose", "draw"]
