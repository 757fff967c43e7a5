"""What moves the parameters: the block they lie in, optimizers, schedules of the rate."""
