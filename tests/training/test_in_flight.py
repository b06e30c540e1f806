import numpy as np
import pytest

from videomae_jax.training.in_flight import DEPTH, InFlight

GOOD, BAD = np.float32(1), np.float32(np.nan)


@pytest.mark.parametrize(
    ("losses", "skipped"),
    [([GOOD], 0), ([BAD], 1), ([BAD, BAD], 2), ([BAD, GOOD], 0), ([GOOD, BAD, GOOD, BAD, BAD], 2)],
)
def test_skipped_steps_are_counted_in_a_row(losses, skipped):
    steps = InFlight()
    for loss in losses:
        steps.add(loss)
    steps.settle()
    assert steps.skipped == skipped


def test_a_few_steps_are_not_waited_for():
    waited = []

    class Loss:
        def __init__(self, number):
            self.number = number

        def __float__(self):
            waited.append(self.number)
            return 0.0

    steps = InFlight()
    for number in range(5):
        steps.add(Loss(number))
        assert waited == list(range(number + 1 - DEPTH))
    steps.settle()
    assert waited == list(range(5))
