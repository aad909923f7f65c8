"""Descriptions given anything: what is read is used, and all that they raise is ours.

The same few inputs in every run; as tests marked slow, thousands of others.
"""

import copy
import json
import struct

import numpy
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_models import AllSites, encoder

from espnet_prune.errors import ConfigError, EspnetPruneError, ModelError
from espnet_prune.methods import METHODS, make_method
from espnet_prune.models.whisper.ct2_file import VERSION, read_ct2
from espnet_prune.surgery import cut, inject, load, save
from espnet_prune.train.systems import SystemRow, read_row

# how many inputs, and whether others each time
RUNS = [
    pytest.param(settings(max_examples=40, deadline=None), id="few"),
    pytest.param(
        settings(
            max_examples=3000,
            deadline=None,
            derandomize=False,
            suppress_health_check=list(HealthCheck),
        ),
        id="many",
        marks=[pytest.mark.slow, pytest.mark.timeout(3600)],
    ),
]
every_run = pytest.mark.parametrize("run", RUNS)
SCALARS = st.none() | st.booleans() | st.integers(-3, 70) | st.floats() | st.text(max_size=4)
KEYS = st.text(max_size=3) | st.integers(-1, 1)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def ct2(tmp_path_factory):
    """A file of two arrays and an alias."""

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    content = struct.pack("<I", VERSION) + name("WhisperSpec") + struct.pack("<II", 3, 2)
    for label, kind, values in (("a", 0, numpy.ones((2, 3), "<f4")), ("b", 1, numpy.ones(4, "i1"))):
        content += name(label) + struct.pack("<B", values.ndim)
        content += struct.pack(f"<{values.ndim}I", *values.shape)
        content += struct.pack("<BI", kind, values.nbytes) + values.tobytes()
    content += struct.pack("<I", 1) + name("c") + name("a")
    path = tmp_path_factory.mktemp("ct2") / "model.bin"
    path.write_bytes(content)
    assert sorted(read_ct2(path).arrays) == ["a", "b", "c"]
    return path, content


@every_run
def test_a_damaged_file_of_ctranslate2_is_read_or_a_model_error(ct2, run):
    path, content = ct2
    changes = st.lists(
        st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), min_size=1, max_size=4
    )

    @run
    @given(changes, st.just(len(content)) | st.integers(0, len(content)))
    def check(changes, end):
        damaged = bytearray(content)
        for place, value in changes:
            damaged[place] = value
        path.write_bytes(damaged[:end])
        try:
            found = read_ct2(path)
        except ModelError:
            return
        assert all(isinstance(array, numpy.ndarray) for array in found.arrays.values())

    check()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder of a cut encoder, and its description."""
    small = cut(inject(encoder(), AllSites(learned=False)).eval())
    folder = save(small, tmp_path_factory.mktemp("saved") / "small")
    load(folder)  # imports ESPnet, which takes longer than an example may
    return folder, json.loads((folder / "model.json").read_text())


def places_in(value: object, path: tuple = ()) -> list[tuple]:
    """Paths of all values within a JSON value, but for its own."""
    inside = value.items() if isinstance(value, dict) else ()
    if isinstance(value, list):
        inside = enumerate(value)
    return [p for key, each in inside for p in [(*path, key), *places_in(each, (*path, key))]]


def put(description: dict, path: tuple, value: object) -> None:
    *above, last = path
    for key in above:
        description = description[key]
    description[last] = value


@every_run
def test_a_model_s_description_with_anything_in_it_is_loaded_or_our_error(saved, run):
    folder, description = saved

    @run
    @given(st.sampled_from(places_in(description)), VALUES)
    def check(path, value):
        changed = copy.deepcopy(description)
        put(changed, path, value)
        (folder / "model.json").write_text(json.dumps(changed))
        try:
            assert not load(folder).training
        except EspnetPruneError as error:
            assert str(folder) in str(error)

    check()


@every_run
def test_systems_of_anything_are_read_or_a_config_error(run):
    keys = st.sampled_from([*SystemRow.__dataclass_fields__, "targets"])
    likely = st.sampled_from([*METHODS, "a", "b", [0.1, 0.3], 0.5, {"budget": {"measure": "macs"}}])
    rows = st.dictionaries(keys, likely | VALUES, max_size=4)
    methods = st.sampled_from(list(METHODS))
    linked = [{"taken_from": "b"}, {"method": "l0", "of": "b"}, {"method": "l0", "ladder": [0.1]}]
    of_a_method = st.builds(lambda row, method: {**row, "method": method}, rows, methods)
    row = st.sampled_from(linked) | SCALARS | of_a_method | rows

    @run
    @given(st.dictionaries(st.sampled_from(["a", "b"]), row, min_size=1))
    def check(systems):
        for name in systems:
            try:
                found = read_row(systems, name, "systems.yaml")
            except ConfigError as error:
                assert "systems.yaml" in str(error)
                continue
            try:
                make_method(found.method, found.options, target=found.target, updates=10)
            except ConfigError:
                continue

    check()
