"""Fast3R."""

from ttt3r.models.fast3r.family import FAMILY

__all__ = ["FAMILY"]
