"""Commands of ``wav.scp`` that print a recording, such as ``sph2pipe -f wav a.sph |``.

They run without a shell: words are quoted as for one, and commands joined by ``|``, but nothing is
expanded, redirected or run besides. Whatever a shell would read otherwise is refused.
"""

import io
import shlex
import signal
import subprocess
import tempfile
from typing import BinaryIO

SECONDS = 1800  # for one recording; a command that waits for something would never end
SHELL = "();<>|&"  # what isn't a part of a word, unless it is quoted
EXPANDED = "$`"
SHOWN_CHARACTERS = 200


def words_of(command: str) -> list[list[str]]:
    """The words of each command of a pipe.

    Args:
        command: with its last ``|``.

    Raises:
        ValueError: it is none, or needs a shell; says which part.
    """
    text = command.strip().removesuffix("|").strip()
    for character in EXPANDED:
        if character in text:
            raise ValueError(f"'{character}' would need a shell; write out what it stands for")
    lexer = shlex.shlex(text, posix=True, punctuation_chars=SHELL)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError as error:
        raise ValueError(f"its quotes aren't closed ({error})") from error
    commands: list[list[str]] = [[]]
    for word in words:
        if word == "|":
            commands.append([])
        elif word and set(word) <= set(SHELL):
            raise ValueError(
                f"'{word}' would need a shell; leave it out (a command's messages are shown where "
                "it fails), or quote it if it is part of a name"
            )
        else:
            commands[-1].append(word)
    if not all(commands):
        raise ValueError("a command is missing before a '|'")
    return commands


def run_pipe(command: str) -> BinaryIO:
    """What a pipe prints.

    Args:
        command: with its last ``|``.

    Raises:
        ValueError: it can't be run, fails, or doesn't end; with the end of what it said.
    """
    commands = words_of(command)
    processes: list[subprocess.Popen] = []
    with tempfile.TemporaryFile() as said:
        try:
            for words in commands:
                before = processes[-1].stdout if processes else subprocess.DEVNULL
                processes.append(
                    subprocess.Popen(words, stdin=before, stdout=subprocess.PIPE, stderr=said)
                )
                if len(processes) > 1:
                    processes[-2].stdout.close()  # so that it ends where this one does
            printed, _ = processes[-1].communicate(timeout=SECONDS)
            for process in processes:
                process.wait(timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise ValueError(f"it has not ended after {SECONDS} s") from error
        except OSError as error:
            raise ValueError(
                f"'{words[0]}' can't be run ({error.strerror}); install it, or convert the "
                "recording"
            ) from error
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        _check_ends(commands, [process.returncode for process in processes], said)
    return io.BytesIO(printed)


def _check_ends(commands: list[list[str]], statuses: list[int], said: BinaryIO) -> None:
    for number, (words, status) in enumerate(zip(commands, statuses, strict=True), 1):
        cut_short = status == -signal.SIGPIPE and number < len(commands)  # the next needed no more
        if status and not cut_short:
            said.seek(0)
            text = " ".join(said.read().decode(errors="replace").split())[-SHOWN_CHARACTERS:]
            raise ValueError(f"'{words[0]}' ended with status {status}{text and f': {text}'}")
