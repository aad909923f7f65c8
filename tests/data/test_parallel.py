"""Shares of split work."""

import pytest

from espnet_prune.data.parallel import Share
from espnet_prune.errors import ConfigError


@pytest.mark.parametrize("number", [1, 3, 7, 20])
def test_shares_are_disjoint_and_make_up_the_whole(number):
    items = list(range(13))
    shares = [Share.parse(f"{index}/{number}").of(items) for index in range(1, number + 1)]
    assert sorted(item for share in shares for item in share) == items
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("text", ["0/3", "4/3", "2", "1/0", "a/b", "-1/2", "1/3/"])
def test_what_is_no_share_is_named(text):
    with pytest.raises(ConfigError, match="expected K/N with 1 <= K <= N"):
        Share.parse(text)
