"""ESPnet's own asr_inference for cut models: registers their encoder class, then hands over.

The command line is that of ``python -m espnet2.bin.asr_inference``.
"""

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Runs espnet2.bin.asr_inference."""
    from espnet_prune.espnet.registry import register

    register()  # before ESPnet's tasks are imported
    from espnet2.bin.asr_inference import main as espnet_main

    espnet_main(None if argv is None else list(argv))
    return 0


if __name__ == "__main__":
    sys.exit(main())
