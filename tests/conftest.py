"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from warm_python import WarmPython

# Before torch and matplotlib are imported: one thread, for parallel runs; no display.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

# Made-up inputs are the same in every run; tests marked slow draw others.
settings.register_profile("suite", derandomize=True, deadline=None, database=None)
settings.load_profile("suite")

REPOSITORY = Path(__file__).resolve().parent.parent
CLUSTER = "cluster"
FIRST = (CLUSTER, "tests/recipes/test_librispeech_recipes.py")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Several processes share the tests by file; all that need a batch system are for one.

    The longest begin first: batch systems, where tests wait, then whole recipes.
    """
    for item in items:
        item.add_marker(pytest.mark.xdist_group(_group(item)))
    last = len(FIRST)
    ranks = {group: rank for rank, group in enumerate(FIRST)}
    items.sort(key=lambda item: ranks.get(_group(item), last))


def _group(item: pytest.Item) -> str:
    """Its file, or CLUSTER."""
    if item.get_closest_marker("cluster") is not None:
        return CLUSTER
    return item.path.relative_to(REPOSITORY).as_posix()


@pytest.fixture(scope="session")
def repository() -> Path:
    """The root of this clone."""
    return REPOSITORY


@pytest.fixture(scope="session")
def system(tmp_path_factory) -> Path:
    """Folder of a cut system with random weights, BPE tokens and global_mvn."""
    from cut_system import write_cut_system

    return write_cut_system(tmp_path_factory.mktemp("exp") / "half")


@pytest.fixture(scope="session")
def warm() -> Iterator[WarmPython]:
    """A Python that has imported the package, for recipes of many commands."""
    python = WarmPython()
    yield python
    python.stop()
