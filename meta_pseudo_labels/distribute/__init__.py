"""Strategies, replicas and shares of a batch."""
