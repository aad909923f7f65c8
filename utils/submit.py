#!/usr/bin/env python3
"""Runs a command here or on a cluster: `utils/submit.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from espnet_prune.cluster.submit import main  # noqa: E402  (after its path)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
