"""``python -m espnet_prune VERB``, which is ``espnet-prune VERB``."""

import sys

from espnet_prune.cli import main

sys.exit(main())
