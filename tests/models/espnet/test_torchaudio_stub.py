"""The stand-in for torchaudio."""

import importlib
import subprocess
import sys

import pytest

from espnet_prune.models.espnet import torchaudio_stub


def forget(monkeypatch) -> None:
    """Takes torchaudio out of the loaded modules until the test ends."""
    for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
        monkeypatch.delitem(sys.modules, name)


@pytest.fixture
def stub(monkeypatch):
    """The stand-in, as where torchaudio can't be imported."""
    before = {n: m for n, m in sys.modules.items() if n.split(".")[0] == "torchaudio"}
    forget(monkeypatch)

    def missing(name):
        raise OSError("libcudart.so.13: cannot open shared object file")

    with monkeypatch.context() as patch:
        patch.setattr(torchaudio_stub.importlib, "import_module", missing)
        torchaudio_stub.ensure_torchaudio()
    yield sys.modules["torchaudio"]
    forget(monkeypatch)
    for name in [n for n in sys.modules if n.split(".")[0] == "torchaudio"]:
        del sys.modules[name]
    sys.modules.update(before)


def test_imports_work(stub):
    for name in torchaudio_stub.SUBMODULES:
        assert importlib.import_module(f"torchaudio.{name}").__name__ == f"torchaudio.{name}"
    import torchaudio.compliance.kaldi as kaldi

    assert kaldi is stub.compliance.kaldi


def test_what_is_used_says_what_is_missing(stub):
    with pytest.raises(ImportError, match="torchaudio.load is needed.*default front-end"):
        stub.load("a.wav")
    with pytest.raises(ImportError, match="torchaudio.transforms.MelSpectrogram is needed"):
        stub.transforms.MelSpectrogram()
    with pytest.raises(ImportError, match="torchaudio.functional.rnnt_loss"):
        from torchaudio.functional import rnnt_loss  # noqa: F401


def test_tools_that_look_at_modules_are_not_disturbed(stub):
    assert not hasattr(stub, "__no_such_attribute__")
    assert stub.__spec__.name == "torchaudio"
    assert importlib.util.find_spec("torchaudio") is stub.__spec__


def test_a_torchaudio_that_is_there_is_kept(monkeypatch):
    forget(monkeypatch)
    own = object()
    monkeypatch.setitem(sys.modules, "torchaudio", own)
    torchaudio_stub.ensure_torchaudio()
    assert sys.modules["torchaudio"] is own


def test_espnet_s_tasks_can_be_imported_with_the_stand_in_alone():
    """In a fresh process in which torchaudio doesn't exist."""
    program = """
import importlib.abc, sys

class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torchaudio":
            raise ImportError("no torchaudio here")

sys.meta_path.insert(0, Nothing())
from espnet_prune.train.teacher_task import TeacherTask
assert sys.modules["torchaudio"].__version__ == "0.0.0"
print(TeacherTask.trainer.__name__)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "GuardedTrainer"
