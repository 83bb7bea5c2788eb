"""What can go wrong in training by no fault of the program."""


class TrainingError(Exception):
    """Training cannot start or go on; the message says why and what to do."""
