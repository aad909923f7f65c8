"""The amounts of speech that a cost is asked of."""

import math

import pytest

from espnet_prune.errors import ConfigError
from espnet_prune.train.run_cost import Corpus


@pytest.mark.parametrize("hours", [-1.0, math.nan])
def test_hours_of_validation_below_nothing_are_refused(hours):
    with pytest.raises(ConfigError, match="--valid_hours: .* is out of range"):
        Corpus(train_hours=1.0, valid_hours=hours)


def test_no_validation_is_no_error():
    assert Corpus(train_hours=1.0, valid_hours=0.0).valid_hours == 0
