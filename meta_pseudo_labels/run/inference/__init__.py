"""What `mpl predict` reads, predicts with, and writes."""
