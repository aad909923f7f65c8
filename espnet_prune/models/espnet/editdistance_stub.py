"""Stands in for ``editdistance`` where it is not installed, as on Python 3.13.

It has no built package for Python 3.13. ESPnet imports it at the first validation and calls one
function of it.
"""

import importlib.util
import sys
import types


def ensure_editdistance() -> None:
    """Makes ``import editdistance`` work, by RapidFuzz where the package is not installed."""
    if "editdistance" in sys.modules or importlib.util.find_spec("editdistance"):
        return
    from rapidfuzz.distance import Levenshtein

    stub = types.ModuleType("editdistance", __doc__)
    stub.eval = Levenshtein.distance
    sys.modules["editdistance"] = stub
