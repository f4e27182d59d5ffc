"""The learners: one `keras.Model` per method, all with the same life cycle."""

from meta_pseudo_labels.learners.adamatch import AdaMatchTerm
from meta_pseudo_labels.learners.base import Learner
from meta_pseudo_labels.learners.fixmatch import FixMatchTerm
from meta_pseudo_labels.learners.flexmatch import FlexMatchTerm
from meta_pseudo_labels.learners.freematch import FreeMatchTerm
from meta_pseudo_labels.learners.method import LEARNERS
from meta_pseudo_labels.learners.mpl import MetaPseudoLabels
from meta_pseudo_labels.learners.pseudo_labels import PseudoLabels
from meta_pseudo_labels.learners.reduced import ReducedMPL
from meta_pseudo_labels.learners.supervised import Supervised
from meta_pseudo_labels.learners.teacher_step import TeacherLoss
from meta_pseudo_labels.learners.uda import UDA, AlignedUDA, UDASettings

LEARNERS.discover()  # So that Keras knows them all.

__all__ = [
    "LEARNERS",
    "UDA",
    "AdaMatchTerm",
    "AlignedUDA",
    "FixMatchTerm",
    "FlexMatchTerm",
    "FreeMatchTerm",
    "Learner",
    "MetaPseudoLabels",
    "PseudoLabels",
    "ReducedMPL",
    "Supervised",
    "TeacherLoss",
    "UDASettings",
]
