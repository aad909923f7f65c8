"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from warm_python import WarmPython

# Before torch and matplotlib are imported: one thread, for parallel runs; no display.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this clone."""
    return REPOSITORY


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    """A Python that has imported the package, for recipes of many commands."""
    python = WarmPython()
    yield python
    python.stop()
