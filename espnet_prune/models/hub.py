"""Downloads from the hub of Hugging Face, whose failures are one line."""

from collections.abc import Callable
from pathlib import Path

from espnet_prune.errors import EnvironmentProblem


def from_hub(download: Callable[..., str], *names: str, problem: str, remedy: str) -> Path:
    """Where a download of the hub put what it got.

    Args:
        download: a function of ``huggingface_hub``.
        names: its arguments.
        problem: what an error says before the hub's own reason.
        remedy: what it says behind it.

    Raises:
        EnvironmentProblem: the hub can't be reached, or has no such thing.
    """
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(download(*names))
    except (OSError, ValueError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        reason = " ".join(str(error).split())[:200]
        raise EnvironmentProblem(f"{problem} ({reason}); {remedy}") from error
