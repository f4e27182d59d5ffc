"""What was measured, one folder per question: see README.md beside this."""
