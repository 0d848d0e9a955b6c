"""VGGT."""

from ttt3r.models.vggt.family import FAMILY

__all__ = ["FAMILY"]
