"""A ``python`` whose ``-m espnet_prune`` starts at once, as a fork of one that has imported.

A small recipe is twenty commands, each of which would import torch and ESPnet for longer than it
works. ``WarmPython`` starts one process that imports them, and makes a folder for the front of PATH
with a ``python`` in it. That asks the process for a fork with its own arguments, environment,
folder and files, passes signals on and ends with the fork's status; whatever else it is asked for,
the real Python does. Nothing of the recipe, its logs or its jobs differs.
"""

import contextlib
import importlib
import os
import pkgutil
import runpy
import selectors
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

PACKAGE = "espnet_prune"
READY_SECONDS = 500  # imports, on a machine that does other things
# What imports happen inside functions.
USED_INSIDE = ("librosa.filters", "matplotlib.pyplot", "jiwer", "torch.utils.data")
WAITING = "INT TERM HUP USR1 USR2"
LENGTH = struct.Struct("!I")
CLIENT = """\
#!{python} -ISE
import os, signal, socket, sys
words = sys.argv[1:]
if words[:2] != ["-m", "{package}"]:
    os.execv("{python}", ["{python}", *words])
server = socket.socket(socket.AF_UNIX)
server.connect("{socket}")
parts = [os.getcwd(), str(len(words)), *words, *(f"{{k}}={{v}}" for k, v in os.environ.items())]
text = "\\0".join(parts).encode(errors="surrogateescape")
socket.send_fds(server, [len(text).to_bytes(4, "big")], [0, 1, 2])
for name in "{signals}".split():
    number = getattr(signal, "SIG" + name)
    if signal.getsignal(number) != signal.SIG_IGN:
        signal.signal(number, lambda number, frame: server.send(bytes([number])))
server.sendall(text)
answer = server.recv(1)
sys.exit(answer[0] if answer else 70)
"""


class WarmPython:
    """A process that has imported the package, and a folder for PATH.

    Attributes:
        folder: holds the ``python`` and the socket; its name is short, as a socket's has to be.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="warm"))
        address = self.folder / "socket"
        program = self.folder / "python"
        program.write_text(
            CLIENT.format(python=sys.executable, package=PACKAGE, socket=address, signals=WAITING)
        )
        program.chmod(0o755)
        self.log = self.folder / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, __file__, str(address)],
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                stdout=log,
                stderr=log,
            )
        end = time.monotonic() + READY_SECONDS
        while not address.exists():
            if self.process.poll() is not None or time.monotonic() > end:
                text = self.log.read_text()
                self.stop()
                raise RuntimeError(f"no Python with everything imported: {text}")
            time.sleep(0.05)

    def environment(self, given: dict[str, str]) -> dict[str, str]:
        """An environment whose ``python`` is this one."""
        return {**given, "PATH": f"{self.folder}:{given['PATH']}"}

    def stop(self) -> None:
        """Ends the process and removes the folder."""
        self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


class Server:
    """Forks for whoever connects; a fork is ended when its client is gone."""

    def __init__(self, address: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(f"{address}.new")
        self.listener.listen(64)
        os.rename(f"{address}.new", address)
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.listener, selectors.EVENT_READ, self._accept)

    def serve(self) -> None:
        while True:
            for key, _ in self.selector.select():
                key.data()

    def _accept(self) -> None:
        client, _ = self.listener.accept()
        head, files, *_ = socket.recv_fds(client, LENGTH.size, 3)
        (length,) = LENGTH.unpack(head)
        text = b""
        while len(text) < length and (part := client.recv(length - len(text))):
            text += part
        process = os.fork()
        if not process:
            os._exit(self._become(client, files, text.decode(errors="surrogateescape")))
        for file in files:
            os.close(file)
        ended = os.pidfd_open(process)
        self.selector.register(client, selectors.EVENT_READ, lambda: self._pass(client, process))
        self.selector.register(
            ended, selectors.EVENT_READ, lambda: self._end(client, ended, process)
        )

    def _pass(self, client: socket.socket, process: int) -> None:
        """A signal from the client; or it is gone."""
        try:
            numbers = client.recv(16)
        except OSError:
            numbers = b""
        if not numbers:
            self.selector.unregister(client)
        with contextlib.suppress(ProcessLookupError):
            for number in numbers:
                os.kill(process, number)
            if not numbers:
                os.killpg(process, signal.SIGKILL)

    def _end(self, client: socket.socket, ended: int, process: int) -> None:
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        with contextlib.suppress(OSError):
            client.send(bytes([status if status >= 0 else 128 - status]))
        self.selector.unregister(ended)
        with contextlib.suppress(KeyError):
            self.selector.unregister(client)
        os.close(ended)
        client.close()

    def _become(self, client: socket.socket, files: list[int], text: str) -> int:
        """The fork: runs the module with what the client has; returns the exit status."""
        status = 1
        try:
            os.setsid()
            self.selector.close()
            self.listener.close()
            client.close()
            for target, file in enumerate(files):
                os.dup2(file, target)
                os.close(file)
            folder, number, *rest = text.split("\0")
            words, variables = rest[: int(number)], rest[int(number) :]
            os.chdir(folder)
            os.environ.clear()
            os.environ.update(variable.split("=", 1) for variable in variables)
            sys.path.insert(0, folder)
            sys.argv = words[1:]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as exit_:
            code = exit_.code
            if code is not None and not isinstance(code, int):
                print(code, file=sys.stderr)
            status = code if isinstance(code, int) else int(code is not None)
        except KeyboardInterrupt:
            status = 128 + signal.SIGINT
        except BaseException:
            traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError):
                stream.flush()
        return status


def import_everything() -> None:
    """The package's modules, and what they import later."""
    import espnet_prune

    for module in pkgutil.walk_packages(espnet_prune.__path__, "espnet_prune."):
        if module.name != f"{PACKAGE}.__main__":
            importlib.import_module(module.name)
    for name in USED_INSIDE:
        importlib.import_module(name)


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    import_everything()
    Server(sys.argv[1]).serve()
