"""StreamVGGT."""

from ttt3r.models.streamvggt.family import FAMILY

__all__ = ["FAMILY"]
