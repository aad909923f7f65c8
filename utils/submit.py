#!/usr/bin/env python3
"""Runs a command here or on a cluster: `utils/submit.py --help`."""

import signal
import sys
from pathlib import Path

# While Python imports, a signal just ends this program; nothing has been submitted.
if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from espnet_prune.cluster.submit import main  # noqa: E402  (after its path)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
