"""What the tests of the models share."""

from collections.abc import Iterator

import jax
import pytest


@pytest.fixture(scope="module")
def quick_compilation() -> Iterator[None]:
    """Programs that are compiled in half the time and run without XLA's optimisations, for modules with many of them.

    The modules without it compile as users do.
    """
    before = jax.config.read("jax_disable_most_optimizations")  # `make test` leaves them out everywhere
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
