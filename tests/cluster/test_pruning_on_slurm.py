"""Pruning as a job of a real Slurm that is interrupted: it ends bit-equal to an unbroken one."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import mini_recipe
import pytest
from safetensors.torch import load_file
from throw_away_slurm import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]
CONFIGURED = (
    "command sbatch {}\noption time=* --time=$0\noption stop_seconds=* --signal=B:USR1@$0\n"
)
TO_MASKS = ("--stage", "prune", "--stop_stage", "cut")


def driver(folder: Path, repository: Path, *options: str) -> list[str]:
    common = ("--speed_factors", "1.0", "--systems", "l0")
    return [*mini_recipe.driver_command(folder, repository), *common, *options]


@pytest.fixture(scope="module")
def environment(warm) -> dict[str, str]:
    return warm.environment({**mini_recipe.environment(), "ESPNET_PRUNE_CURRENT_ENV": "1"})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory, repository, environment) -> Path:
    """An experiment with a system that was pruned and cut without a break."""
    folder = tmp_path_factory.mktemp("unbroken")
    mini_recipe.write_recipe(folder, repository)
    stages = ("--stage", "statistics", "--stop_stage", "cut", "--skip_stages", "score_teacher")
    command = driver(folder, repository, *stages)
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
    return folder


class Pruning:
    """A pruning job that stands still after its first saved epoch, until it may go on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "exp/base/log/08_prune.1.log"

    def processes(self) -> list[int]:
        """Forks in its folder: the training, its readers of data, the driver's waiting."""
        found = []
        for path in Path("/proc").glob("[0-9]*"):
            try:
                here = Path(os.readlink(path / "cwd")) == self.folder
                if here and b"warm_python.py" in (path / "cmdline").read_bytes():
                    found.append(int(path.name))
            except OSError:
                continue
        return found

    def signal(self, number: int) -> None:
        for process in self.processes():
            os.kill(process, number)

    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def stand_still(self) -> None:
        saved = self.folder / "exp/base/l0/prune/checkpoint.pth"
        assert wait_until(saved.exists, 200, 0.005), self.text()
        self.signal(signal.SIGSTOP)
        assert "# ended after" not in self.text()

    def go_on_when_asked_to_stop(self, seconds: float) -> None:
        asked = self.folder / "exp/base/log/.jobs"
        assert wait_until(lambda: any(asked.glob("*/*.stop")), seconds), self.text()
        self.signal(signal.SIGCONT)
        assert wait_until(lambda: "# ended after" in self.text(), 60), self.text()


@pytest.fixture
def begin(slurm, unbroken, tmp_path, repository, environment):
    """Submits pruning and cutting of a copy of the experiment; waits for them at the end."""
    folder = mini_recipe.copy_without(unbroken, tmp_path / "copy", ["exp/base/l0", "exp/base/log"])
    folder = folder.resolve()
    begun = []

    def call(submit_options: str, sbatch_options: str = "") -> tuple[Pruning, Callable[[], None]]:
        site = tmp_path / "site.conf"
        site.write_text(CONFIGURED.format(sbatch_options))
        command = f"submit.py --backend slurm --config {site} {submit_options}"
        process = subprocess.Popen(
            driver(folder, repository, *TO_MASKS, "--cmd_backend", "slurm", "--wait"),
            env=environment | {"SLURM_CONF": slurm.environment["SLURM_CONF"], "cuda_cmd": command},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        begun.append(process)
        pruning = Pruning(folder)

        def finish() -> None:
            output, error = process.communicate(timeout=200)
            assert process.returncode == 0, output[-2000:] + error[-3000:] + pruning.text()
            name = "exp/base/l0/cut/model.safetensors"
            ours, theirs = load_file(folder / name), load_file(unbroken / name)
            assert ours.keys() == theirs.keys()
            assert all(ours[key].equal(theirs[key]) for key in ours)

        return pruning, finish

    yield call
    Pruning(folder).signal(signal.SIGCONT)
    for process in begun:
        process.terminate()
        process.communicate()


def test_its_time_limit_is_hit(begin):
    """Slurm announces a limit's end up to half a minute early: 25 to 55 s after the start."""
    pruning, finish = begin("--time 2 --stop-seconds 65")
    pruning.stand_still()
    pruning.go_on_when_asked_to_stop(100)
    finish()
    assert "stopped as asked: exp/base/l0/prune: " in pruning.text()
    assert pruning.text().count("# ended after") == 2


def test_its_node_is_lost(begin, slurm):
    pruning, finish = begin("")
    pruning.stand_still()
    node = int(slurm.ask("squeue", "-h", "-t", "R", "-o", "%N").strip().removeprefix("n"))
    slurm.power_off(node)
    pruning.signal(signal.SIGCONT)  # to the driver that waits
    try:
        slurm.ask("scontrol", "update", f"NodeName=n{node}", "State=DOWN", "Reason=test")
        finish()
    finally:
        slurm.start_node(node)
        slurm.ask("scontrol", "update", f"NodeName=n{node}", "State=RESUME")
        assert wait_until(slurm.is_idle, 30)
    assert (
        pruning.text().count("espnet_prune prune") == 2
        and pruning.text().count("# ended after") == 1
    )


def test_another_job_preempts_it(begin, slurm, submit):
    pruning, finish = begin("--stop-seconds 60", "--partition=low --exclusive --nodes=2")
    pruning.stand_still()
    words = ("--backend", "slurm", "--wait", "false", "log/urgent.log", "true")
    assert submit(*words, environment=slurm.environment).returncode == 0
    pruning.go_on_when_asked_to_stop(60)
    finish()
    assert pruning.text().count("espnet_prune prune") == 2
