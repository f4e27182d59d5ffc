"""Measurements, one folder per question; see README.md in this folder."""
