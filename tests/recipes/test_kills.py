"""Kill -9 of a whole run at random moments of each stage, and the same command again.

What the stages make is bit for bit what they make in a run that nothing interrupts.
"""

import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from os import killpg
from pathlib import Path

import mini_recipe
import pytest

KILLS = 20
# Results that depend on nothing but the data and the configuration: neither places nor times.
RESULTS = (
    "data/tokens/*.txt",
    "dump/*/audio/*.flac",
    "dump/*/text",
    "dump/*/utt2num_samples",
    "exp/base/stats/*/*_shape",
    "exp/base/stats/*/feats_stats.npz",
    "exp/base/*/plan.json",
    "exp/base/*/model/model.safetensors",
    "exp/base/*/decode/*/*/hyp",
    "exp/base/*/decode/*/*/score.json",
)
STAGE_SECONDS = re.compile(r"^Stage (\d+) took (\d+) s$", re.MULTILINE)


def results(folder: Path) -> dict[str, bytes]:
    """What was made, by its path."""
    paths = (path for pattern in RESULTS for path in folder.glob(pattern))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class Runs:
    """The driver in one folder.

    Args:
        folder: of the recipe.
        repository: the checkout.
        warm: a Python that has imported; a run's processes end with it.
    """

    def __init__(self, folder: Path, repository: Path, warm) -> None:
        mini_recipe.write_whole_recipe(folder, repository)
        self.folder = folder
        self.command = mini_recipe.driver_command(folder, repository, jobs=2)
        environment = {**mini_recipe.environment(), "ESPNET_PRUNE_CURRENT_ENV": "1"}
        self.environment = warm.environment(environment)

    def finish(self, first: int, last: int) -> dict[int, float]:
        """Runs stages to their end; returns how many seconds each took."""
        done = self._start(first, last)
        printed, _ = done.communicate()
        assert done.returncode == 0, printed[-3000:]
        return {int(n): float(seconds) for n, seconds in STAGE_SECONDS.findall(printed)}

    def kill(self, stage: int, seconds: float) -> None:
        """Runs a stage and kills it, with all that it started, after so long."""
        process = self._start(stage, stage)
        time.sleep(seconds)
        with suppress(ProcessLookupError):
            killpg(process.pid, signal.SIGKILL)
        process.communicate()

    def _start(self, first: int, last: int) -> subprocess.Popen:
        return subprocess.Popen(
            [*self.command, "--stage", str(first), "--stop_stage", str(last)],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repository, warm) -> Iterator[list[Runs]]:
    """Two folders with the same recipe."""
    return [Runs(tmp_path_factory.mktemp(n), repository, warm) for n in ("unbroken", "killed")]


def kill_often(runs: list[Runs], first: int, last: int, kills: int) -> None:
    """Runs stages in both folders, the second one's with kills, and compares."""
    unbroken, killed = runs
    draw = random.Random(first)
    for stage in range(first, last + 1):
        took = unbroken.finish(stage, stage)[stage]
        for _ in range(kills):
            killed.kill(stage, draw.uniform(0, took + 2))
        killed.finish(stage, stage)
        expected, found = results(unbroken.folder), results(killed.folder)
        assert expected.keys() == found.keys()
        assert [path for path in expected if expected[path] != found[path]] == []


@pytest.mark.timeout(600)
def test_a_few_kills_of_the_stages_that_make_data(runs):
    kill_often(runs, 2, 4, kills=2)
    assert any(path.endswith(".flac") for path in results(runs[1].folder))


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_many_kills_of_every_stage(runs):
    kill_often(runs, 2, 11, KILLS)
    found = results(runs[1].folder)
    for name in ("teacher", "l0", "magnitude"):
        assert f"exp/base/{name}/model/model.safetensors" in found
        assert f"exp/base/{name}/decode/test/joint/hyp" in found
