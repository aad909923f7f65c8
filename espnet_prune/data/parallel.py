"""One function over many utterances: on several processes, or in shares of several jobs.

Jobs that share a stage's work each make every N-th of its files. The stage's command without a
share then makes what is missing, normally nothing, and puts the files together. No job removes
another's files of the same configuration: ``resume.begin`` removes those of an older one, and
should it be so late that it meets a new one, that one is made again at the end.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from typing import TypeVar

from tqdm import tqdm

from espnet_prune.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Share:
    """Every ``number``-th item, beginning with the ``index``-th, counted from 1."""

    index: int
    number: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Reads ``K/N``.

        Raises:
            ConfigError: it isn't that, with 1 <= K <= N.
        """
        match = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise ConfigError(f"--part: '{text}'; expected K/N with 1 <= K <= N, such as 2/8")
        return cls(int(match[1]), int(match[2]))

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """This share of the items."""
        return items[self.index - 1 :: self.number]


WHOLE = Share(1, 1)


def add_jobs(parser: argparse.ArgumentParser) -> None:
    """The options of a verb that shares its work among processes and among jobs."""
    parser.add_argument("--nj", type=int, default=1, help="processes, of one thread each")
    parser.add_argument("--part", help="K/N: only make this share of the files, from 1/N to N/N")


def share_of(args: argparse.Namespace) -> Share | None:
    """The share that ``--part`` names; None for all of the work."""
    return Share.parse(args.part) if args.part else None


class Followed(Sequence[T]):
    """A list that shows a progress bar, on a terminal, to whoever goes through it.

    Args:
        items: the list.
        title: what the bar is called.
    """

    def __init__(self, items: Sequence[T], title: str) -> None:
        self.items = items
        self.title = title

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index):
        return self.items[index]

    def __iter__(self) -> Iterator[T]:
        quiet = not sys.stderr.isatty()
        return iter(tqdm(self.items, self.title, leave=False, disable=quiet))


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
        jobs: number of processes, no more than there are items; 1 runs in this one.
        title: title of the progress bar.
        fresh_processes: start them anew instead of copying this one, as torch's threads need.
    """

    def follow(results: Iterable[R]) -> list[R]:
        return list(tqdm(results, title, len(items), disable=not sys.stderr.isatty()))

    jobs = min(jobs, len(items))
    if jobs <= 1:
        return follow(map(function, items))
    context = get_context("spawn" if fresh_processes else None)
    with ProcessPoolExecutor(jobs, mp_context=context) as pool:
        chunk = 1 if fresh_processes else max(1, min(32, len(items) // (4 * jobs)))
        return follow(pool.map(function, items, chunksize=chunk))
