"""What a student leaves as: SavedModel, LiteRT, its card, the small server."""
