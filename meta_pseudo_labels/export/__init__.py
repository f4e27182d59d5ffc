"""Exports of a student: SavedModel, LiteRT, its card, and a small server."""
