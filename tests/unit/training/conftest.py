from pathlib import Path

import pytest

from tests.small_world import precompute_small_world


@pytest.fixture(scope="session")
def precomputed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of training.precompute: 14 people of a small world. Tests only read it."""
    return precompute_small_world(tmp_path_factory.mktemp("precomputed"))
