"""Getting published weights onto this machine: found or downloaded, checked and converted.

Nothing here runs unless `fetch` is called: `load` never asks the net for anything.
"""

from ttt3r.weights.fetching.obtain import fetch, published
from ttt3r.weights.fetching.stock import Stock, remove, stock, verify

__all__ = ["Stock", "fetch", "published", "remove", "stock", "verify"]
