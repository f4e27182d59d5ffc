"""What tests of several benchmarks need."""

import importlib

import pytest

from meta_pseudo_labels.learners.feedback import ESTIMATORS


@pytest.fixture
def audited(monkeypatch):
    """The module of the audit's estimators, which no other test shall find."""
    ESTIMATORS.discover()
    monkeypatch.setattr(ESTIMATORS, "_found", ESTIMATORS.registered)
    module = importlib.import_module("benchmarks.audit.estimators")
    return importlib.reload(module)
