"""Shares of split work, and how many processes do one."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from espnet_prune.data import parallel
from espnet_prune.data.parallel import Followed, Share, parallel_map
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


@pytest.mark.parametrize("fresh_processes", [False, True])
@pytest.mark.parametrize(
    ("items", "jobs", "processes"), [(34, 64, 34), (3, 2, 2), (2, 2, 2), (1, 8, 0), (9, 1, 0)]
)
def test_as_many_processes_as_jobs_or_items(monkeypatch, items, jobs, processes, fresh_processes):
    made = [0]  # in this process alone

    class Pool(ThreadPoolExecutor):
        def __init__(self, number, mp_context):
            made.append(number)
            super().__init__(number)

    monkeypatch.setattr(parallel, "ProcessPoolExecutor", Pool)
    numbers = list(range(items))
    found = parallel_map(str, numbers, jobs, "test", fresh_processes)
    assert found == list(map(str, numbers)) and made[-1] == processes


@pytest.mark.parametrize("on_a_terminal", [True, False])
def test_whoever_goes_through_a_list_is_followed_on_a_terminal(on_a_terminal, monkeypatch):
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return on_a_terminal

    monkeypatch.setattr(sys, "stderr", Stream())
    items = Followed([3, 1, 2], "counting")
    assert (len(items), items[1], items[1:], list(items)) == (3, 1, [1, 2], [3, 1, 2])
    assert ("counting" in sys.stderr.getvalue()) == on_a_terminal
