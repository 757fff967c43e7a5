"""Training: the loop, validation, what a run keeps and where it saves it."""
