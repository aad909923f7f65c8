"""The rate of a model's front-end, as ESPnet's configurations write it."""

import pytest

from espnet_prune.errors import ModelError
from espnet_prune.models.espnet.features import sample_rate_of


@pytest.mark.parametrize(
    ("config", "rate"),
    [
        (None, 16000),
        ({"frontend": None, "frontend_conf": None}, 16000),
        ({"frontend_conf": {"n_mels": 20}}, 16000),
        ({"frontend_conf": {"fs": 8000}}, 8000),
        ({"frontend_conf": {"fs": "8k"}}, 8000),
        ({"frontend_conf": {"fs": "22050"}}, 22050),
    ],
)
def test_a_rate_is_a_number_or_a_string_of_thousands(config, rate):
    assert sample_rate_of(config) == rate


@pytest.mark.parametrize("value", ["fast", "", None, 0, True, [8000]])
def test_what_is_no_rate_is_named(value):
    with pytest.raises(ModelError, match="frontend_conf: fs: .*such as 8000 or 8k"):
        sample_rate_of({"frontend_conf": {"fs": value}})
