"""ESPnet's type checks, made where they are called: its functions refuse what they refused."""

import inspect

import pytest
import typeguard
from typeguard import TypeCheckError

from espnet_prune.models.espnet import choices  # noqa: F401  (ESPnet, as the project imports it)

from espnet2.tasks.abs_task import AbsTask  # isort: skip  (after the stubs)
from espnet2.train.collate_fn import CommonCollateFn  # isort: skip


def test_a_value_of_another_type_is_refused():
    for _ in range(2):  # the first call, which makes the checks, and a later one
        assert CommonCollateFn(int_pad_value=-1).int_pad_value == -1
        with pytest.raises(TypeCheckError, match="int_pad_value"):
            CommonCollateFn(int_pad_value="none")


def test_signatures_are_those_of_espnet():
    parameters = inspect.signature(CommonCollateFn.__init__).parameters
    assert parameters["int_pad_value"].default == -32768
    assert list(inspect.signature(AbsTask.build_iter_factory).parameters)[:2] == [
        "args",
        "distributed_option",
    ]


def test_typeguard_itself_stays_as_it_is():
    assert typeguard.typechecked is typeguard._decorators.typechecked
