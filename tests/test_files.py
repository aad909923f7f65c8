"""Files are whole or absent; stages know what made them."""

import errno
import subprocess
import sys

import pytest

from espnet_prune import cli
from espnet_prune.cli import BROKEN_PIPE_EXIT
from espnet_prune.errors import ConfigError, DataError, EnvironmentProblem
from espnet_prune.io_atomic import atomic_path, read_json, write_json, write_text
from espnet_prune.record import OTHER_WORK_DIR, finished, mark_finished


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path):
    target = tmp_path / "x.txt"
    write_text(target, "old")
    with pytest.raises(ValueError), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise ValueError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_full_disk_is_named_with_the_file(tmp_path):
    with pytest.raises(EnvironmentProblem, match="x.txt.*no space left"):
        with atomic_path(tmp_path / "x.txt") as temporary:
            temporary.write_text("half")
            raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_json_errors_name_the_file(tmp_path):
    with pytest.raises(DataError, match="no.json: no such file"):
        read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(DataError, match="bad.json: not valid JSON"):
        read_json(tmp_path / "bad.json")
    write_json(tmp_path / "good.json", {"a": [1, 2]})
    assert read_json(tmp_path / "good.json") == {"a": [1, 2]}


def test_a_stage_is_finished_only_with_its_own_configuration(tmp_path):
    config = {"a": {"b": 1}, "c": (1, 2)}
    assert not finished(tmp_path, config)
    mark_finished(tmp_path, config)
    assert finished(tmp_path, config)
    with pytest.raises(ConfigError, match="a.b: 1 -> 2"):
        finished(tmp_path, {"a": {"b": 2}, "c": (1, 2)})
    with pytest.raises(ConfigError, match="Use another --tag"):
        finished(tmp_path, {})
    with pytest.raises(ConfigError, match="Use another --work_dir, or remove .* every exp/TAG"):
        finished(tmp_path, {}, OTHER_WORK_DIR)


def test_a_user_error_is_one_line_and_status_2(monkeypatch, capsys):
    def broken(argv):
        raise DataError("x: broken; mend it")

    monkeypatch.setattr(cli, "run", broken)
    assert cli.main(["x"]) == 2
    assert capsys.readouterr().err.strip().endswith("error: x: broken; mend it")


@pytest.mark.parametrize("options", [["-u"], []], ids=["unbuffered", "buffered"])
@pytest.mark.parametrize("flush", [True, False])
def test_output_that_nobody_reads_ends_a_program_quietly(options, flush):
    code = (
        "import sys; from espnet_prune import cli\n"
        f"def run(argv): sys.stdin.read(); print('a line', flush={flush}); return 0\n"
        "cli.run = run; sys.exit(cli.main(['x']))"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen([sys.executable, *options, "-c", code], **pipes) as process:
        process.stdout.close()
        process.stdin.close()  # only now does it print
        assert process.stderr.read() == b""
    assert process.returncode == BROKEN_PIPE_EXIT


def test_a_broken_pipe_that_is_not_stdout_is_no_quiet_end(monkeypatch):
    def broken(argv):
        raise BrokenPipeError

    monkeypatch.setattr(cli, "run", broken)
    with pytest.raises(BrokenPipeError):
        cli.main(["x"])
