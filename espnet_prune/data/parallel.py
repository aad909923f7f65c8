"""One function over many utterances, on several processes, with a progress bar on a terminal."""

import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")
R = TypeVar("R")


def parallel_map(
    function: Callable[[T], R],
    items: Sequence[T],
    jobs: int,
    title: str,
    fresh_processes: bool = False,
) -> list[R]:
    """``[function(item) for item in items]``, the first error of any process raised here.

    Args:
        function: a function of a module, so that processes can find it.
        items: what it is applied to.
        jobs: number of processes; 1 runs in this one.
        title: of the progress bar.
        fresh_processes: start them anew instead of copying this one, as torch's threads need.
    """

    def follow(results: Iterable[R]) -> list[R]:
        return list(tqdm(results, title, len(items), disable=not sys.stderr.isatty()))

    if jobs <= 1 or len(items) < 2 * jobs:
        return follow(map(function, items))
    context = get_context("spawn" if fresh_processes else None)
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        chunk = 1 if fresh_processes else max(1, min(32, len(items) // (4 * jobs)))
        return follow(pool.map(function, items, chunksize=chunk))
