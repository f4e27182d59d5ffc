"""Streams of batches: keyed, resumable, shared over replicas."""
