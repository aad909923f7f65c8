"""Around imports of ESPnet: stubs of what it can do without, and quiet."""

import contextlib
import io
from collections.abc import Iterator

from espnet_prune.models.espnet.editdistance_stub import ensure_editdistance
from espnet_prune.models.espnet.torchaudio_stub import ensure_torchaudio
from espnet_prune.models.espnet.warprnnt_stub import ensure_warprnnt


@contextlib.contextmanager
def importing_espnet() -> Iterator[None]:
    """Within it, ESPnet is imported without its regret that flash_attn isn't installed."""
    ensure_torchaudio()
    ensure_editdistance()
    ensure_warprnnt()
    with contextlib.redirect_stderr(io.StringIO()):
        yield
