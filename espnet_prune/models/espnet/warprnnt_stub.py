"""Stands in for ``warprnnt_pytorch`` where it is not installed.

No registry has a build of it. ESPnet's transducers take their loss from it, and nothing else; here
that is ``transducer_loss``.
"""

import importlib.util
import sys
import types


def ensure_warprnnt() -> None:
    """Makes ``from warprnnt_pytorch import RNNTLoss`` work, by the installed one where it is."""
    if "warprnnt_pytorch" in sys.modules or importlib.util.find_spec("warprnnt_pytorch"):
        return
    from espnet_prune.models.espnet.transducer_loss import TransducerLoss

    stub = types.ModuleType("warprnnt_pytorch", __doc__)
    stub.RNNTLoss = TransducerLoss
    sys.modules["warprnnt_pytorch"] = stub
