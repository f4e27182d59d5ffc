"""Metrics, evaluation, figures and the diagnosis of the feedback."""
