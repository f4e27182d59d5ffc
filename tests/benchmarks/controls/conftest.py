"""Keeps the estimators of the suite `audit`, a plug-in, from other tests."""

import sys

import pytest

from meta_pseudo_labels.learners.feedback import ESTIMATORS


@pytest.fixture(autouse=True)
def _without_plugins(monkeypatch):
    """Lets each test begin without what settings of the suite import."""
    ESTIMATORS.discover()
    monkeypatch.setattr(ESTIMATORS, "_found", ESTIMATORS.registered)
    monkeypatch.delitem(
        sys.modules, "benchmarks.audit.estimators", raising=False
    )
