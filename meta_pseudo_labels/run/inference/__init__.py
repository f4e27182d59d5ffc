"""What --task_mode=inference reads, predicts with, and writes."""
