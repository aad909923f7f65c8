"""A site's file for a scheduler, in Kaldi's line format: conf/slurm.conf, conf/queue.conf.

Lines are ``command WORDS``, ``default KEY=VALUE`` and ``option KEY=VALUE [WORDS]``; the value ``*``
stands for any, and ``$0`` among the words for the one given. ``#`` begins a comment.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from espnet_prune.config import nearest
from espnet_prune.errors import ConfigError

ANY = "*"


@dataclass(frozen=True)
class Rule:
    """Which words an option's value becomes."""

    key: str
    value: str
    words: tuple[str, ...]
    line: int


@dataclass(frozen=True)
class Words:
    """Words of the scheduler's command line and where they come from."""

    words: tuple[str, ...]
    origin: str


@dataclass(frozen=True)
class Site:
    """A file that was read."""

    path: Path
    command: tuple[str, ...]
    rules: tuple[Rule, ...]
    defaults: Mapping[str, str]

    def translate(self, options: Mapping[str, str]) -> list[Words]:
        """The scheduler's words for the given options and the file's defaults.

        Args:
            options: values by key, as given on the command line.

        Raises:
            ConfigError: an option that no line of the file has, or a value that none takes.
        """
        result = []
        for key, value in {**self.defaults, **options}.items():
            rule = self._rule(key, value)
            words = tuple(word.replace("$0", value) for word in rule.words)
            given = flag(key) if key in options else f"default {key}={value}"
            origin = f"{given} ({self.path}, line {rule.line}: option {rule.key}={rule.value})"
            result.append(Words(words, origin))
        return result

    def _rule(self, key: str, value: str) -> Rule:
        of_key = [rule for rule in self.rules if rule.key == key]
        if not of_key:
            keys = sorted({rule.key for rule in self.rules})
            raise ConfigError(
                f"{flag(key)}: {self.path} has no line 'option {key}=...'"
                f"{nearest(key, keys)}; add one, or use one of "
                f"{', '.join(flag(known) for known in keys)}"
            )
        for wanted in (value, ANY):
            for rule in of_key:
                if rule.value == wanted:
                    return rule
        values = ", ".join(rule.value for rule in of_key)
        raise ConfigError(
            f"{flag(key)}: {self.path} has no line 'option {key}={value}' and no "
            f"'option {key}=*', only {values}"
        )


def flag(key: str) -> str:
    """The option as it is typed."""
    return f"--{key.replace('_', '-')}"


def read_site(path: Path) -> Site:
    """Reads a site's file.

    Raises:
        ConfigError: no such file; a line that is none of the three kinds, or no command.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ConfigError(
            f"{path}: can't be read ({error.strerror}); name another by --config"
        ) from error
    command: tuple[str, ...] = ()
    rules, defaults = [], {}
    for number, line in enumerate(lines, 1):
        try:
            kind, *words = shlex.split(line, comments=True) or [""]
        except ValueError as error:
            raise ConfigError(f"{path}, line {number}: {error}: {line}") from error
        key, equals, value = words[0].partition("=") if words else ("", "", "")
        if kind == "command" and words:
            command = tuple(words)
        elif kind == "option" and equals:
            rules.append(Rule(key, value, tuple(words[1:]), number))
        elif kind == "default" and equals and len(words) == 1:
            defaults[key] = value
        elif kind:
            raise ConfigError(
                f"{path}, line {number}: expected 'command WORDS', 'option KEY=VALUE [WORDS]' or "
                f"'default KEY=VALUE', not '{line}'"
            )
    if not command:
        raise ConfigError(f"{path}: no line 'command ...', such as 'command sbatch --export=ALL'")
    return Site(path, command, tuple(rules), defaults)
