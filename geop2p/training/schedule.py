"""The learning rate over a training."""


def decay(step: int, total: int) -> float:
    """Factor of the learning rate: 1 for the first half of the steps, then falling in a straight line to 0.

    Args:
        step: Steps done.
        total: Steps of the whole training.
    """
    return min(1.0, 2 * (total - step) / total)
