"""Imports run downwards only, also those inside functions, as CONTRIBUTING says."""

import ast

import pytest

PACKAGE = "espnet_prune"
# From the top; a room imports those of the rows below it.
ROWS = (
    ("__init__", "__main__"),
    ("cli",),
    ("report",),
    ("score",),
    ("train", "decode"),
    ("export",),
    ("models",),
    ("methods",),
    ("surgery",),
    ("sites",),
    ("gates", "budget", "distill"),
    ("data", "cluster"),
    ("record", "job_control", "io_torch"),
    ("io_atomic", "config"),
    ("out_path",),
    ("errors",),
)
RANKS = {room: rank for rank, row in enumerate(ROWS) for room in row}
# Names of modules that are looked up when the program runs: the records of the families.
LOOKED_UP = {("surgery", "models")}


def imported(source: str) -> set[str]:
    """The rooms that a source imports anywhere, or names a module of in a string."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names |= {node.value} & {f"{PACKAGE}.{room}" for room in RANKS}
    parts = (name.split(".") for name in names)
    found = {(part[1:] or ["__init__"])[0] for part in parts if part[0] == PACKAGE}
    return {room if room in RANKS else "__init__" for room in found}


def test_imports_run_downwards(repository):
    upwards, rooms = [], set()
    for path in sorted((repository / PACKAGE).rglob("*.py")):
        parts = path.relative_to(repository / PACKAGE).with_suffix("").parts
        room = parts[0]
        rooms.add(room)
        for other in imported(path.read_text()) - {room}:
            if RANKS[other] <= RANKS[room] and (room, other) not in LOOKED_UP:
                upwards.append(f"{'/'.join(parts)} imports {other}")
    assert not upwards
    assert rooms == set(RANKS)


@pytest.mark.parametrize(
    ("source", "rooms"),
    [
        ("import json\nfrom espnet_prune.sites.base import Site", {"sites"}),
        ("def f():\n    from espnet_prune import train", {"train"}),
        ("import espnet_prune", {"__init__"}),
        ("from espnet_prune import load", {"__init__"}),
        ("name = 'espnet_prune.models'\nimport espnet_prune_other", {"models"}),
    ],
)
def test_every_kind_of_import_is_seen(source, rooms):
    assert imported(source) == rooms
