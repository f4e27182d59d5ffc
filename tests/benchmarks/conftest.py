"""What tests of several benchmarks need."""

import sys

import pytest

from meta_pseudo_labels.learners.feedback import ESTIMATORS

AUDITED = "benchmarks.audit.estimators"


@pytest.fixture
def without_plugins(monkeypatch):
    """Keeps the audit's estimators, a plug-in, from all other tests."""
    ESTIMATORS.discover()
    monkeypatch.setattr(ESTIMATORS, "_found", ESTIMATORS.registered)
    sys.modules.pop(AUDITED, None)  # It registers when it is imported.
    yield
    sys.modules.pop(AUDITED, None)
