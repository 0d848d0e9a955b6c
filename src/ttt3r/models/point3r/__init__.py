"""Point3R."""

from ttt3r.models.point3r.family import FAMILY

__all__ = ["FAMILY"]
