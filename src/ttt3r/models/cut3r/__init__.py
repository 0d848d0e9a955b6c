"""CUT3R."""

from ttt3r.models.cut3r.family import FAMILY

__all__ = ["FAMILY"]
