"""What all tests share."""

import os
from pathlib import Path

import pytest

# Before torch and matplotlib are imported: one thread, for parallel runs; no display.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this clone."""
    return REPOSITORY
