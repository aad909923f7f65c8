"""A site's file in Kaldi's line format, and the command line that it makes."""

import os
import sys

import pytest

from espnet_prune.cluster.job import Job, record, write_id
from espnet_prune.cluster.script import HANDED_ON, write_script
from espnet_prune.cluster.site import read_site
from espnet_prune.cluster.slurm import sbatch_command
from espnet_prune.errors import ConfigError

TEXT = """\
# a comment
command sbatch --export=ALL -A "my account"  # another
default gpu=0
option gpu=0 -p cpu
option gpu=* -p gpu --gres=gpu:$0
option max_jobs_run=*
"""


@pytest.fixture
def site(tmp_path):
    path = tmp_path / "slurm.conf"
    path.write_text(TEXT)
    return read_site(path)


def words(site, **options):
    return [word for group in site.translate(options) for word in group.words]


def test_defaults_exact_values_and_any_value(site):
    assert site.command == ("sbatch", "--export=ALL", "-A", "my account")
    assert words(site) == ["-p", "cpu"]
    assert words(site, gpu="2", max_jobs_run="3") == ["-p", "gpu", "--gres=gpu:2"]


def test_unknown_options_and_values_are_named(site, tmp_path):
    with pytest.raises(
        ConfigError, match="--gpus: .*no line 'option gpus=...' .did you mean 'gpu'"
    ):
        site.translate({"gpus": "1"})
    site.path.write_text("command sbatch\noption gpu=0\n")
    with pytest.raises(ConfigError, match="no line 'option gpu=1' and no 'option gpu=.', only 0"):
        read_site(site.path).translate({"gpu": "1"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("options gpu=1\n", "line 1: expected 'command WORDS'"),
        ("command sbatch\noption gpu\n", "line 2: expected"),
        ("command sbatch\ndefault a=b c\n", "line 2: expected"),
        ('command sbatch "\n', "line 1: No closing quotation"),
        ("default gpu=0\n", "no line 'command ...'"),
    ],
)
def test_wrong_lines_are_named(tmp_path, text, expected):
    path = tmp_path / "x.conf"
    path.write_text(text)
    with pytest.raises(ConfigError, match=expected):
        read_site(path)


@pytest.mark.parametrize("name", ["slurm.conf", "queue.conf"])
def test_this_project_s_files_take_the_options_of_the_help(repository, name):
    given = {"mem": "4G", "num_threads": "3", "gpu": "2", "stop_seconds": "60", "time": "9"}
    text = " ".join(words(read_site(repository / "conf" / name), **given, max_jobs_run="5"))
    for value in ("4G", "3", "2", "9"):
        assert value in text
    assert (
        words(read_site(repository / "conf" / name), gpu="0", mem="0", stop_seconds="0")[1:] == []
    )


def test_the_whole_command_line_of_an_array(site, tmp_path):
    before = tmp_path / "before"
    write_id(before, "17")
    job = Job(
        backend="slurm",
        log="log/50%.JOB.log",
        command=("true",),
        directory=str(tmp_path),
        variable="JOB",
        first=2,
        last=5,
        after=(str(before),),
    )
    folder = tmp_path / "records"
    record(job, folder)
    options = {"max_jobs_run": "2"}
    command = sbatch_command(job, folder, site, options, site.translate(options))
    assert f"--output={tmp_path}/log/50%%.%a.log" in command
    assert "--array=2-5%2" in command and "--dependency=afterok:17" in command
    assert command[-1] == str(folder / "script.sh")


def test_a_job_has_the_recipe_s_variables_whatever_environment_the_site_hands_on(
    tmp_path, monkeypatch, repository
):
    for name in [n for n in os.environ if n in HANDED_ON or n.startswith("ESPNET_PRUNE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("conf_dir", "/a folder/conf")
    monkeypatch.setenv("nj", "3")
    monkeypatch.setenv("ESPNET_PRUNE_SAVE_SECONDS", "300")
    monkeypatch.setenv("ESPNET_PRUNE_TASK", "that of a job that submits another")
    monkeypatch.setenv("ESPNET_PRUNE_TASK_TOKEN", "likewise")
    job = Job("slurm", "x.log", ("true",), str(tmp_path))
    assert write_script(job, tmp_path / "records").read_text().splitlines() == [
        "#!/bin/bash",
        "trap '' USR1 USR2",
        f"cd {tmp_path} || exit 1",
        f"export PYTHONPATH={repository}${{PYTHONPATH:+:$PYTHONPATH}}",
        "export ESPNET_PRUNE_SAVE_SECONDS=300",
        "export conf_dir='/a folder/conf'",
        "export nj=3",
        f"exec {sys.executable} -m espnet_prune.cluster.task {tmp_path}/records slurm",
    ]
