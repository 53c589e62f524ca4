"""What is measured of a training: the time of an epoch, and of a step one change at a time."""
