"""Weights: where they come from, safe reading, strict loading and conversion.

``load`` makes a network of a name or a file. Nothing in a weight file is ever executed, every
tensor must fit, and the licence of the weights stays with them.
"""

from ttt3r.models.family import Family
from ttt3r.models.registry import FAMILIES
from ttt3r.weights.catalogue import (
    CATALOGUE,
    WeightsSpec,
    how_to_get,
    licence_notice,
    weights_folder,
)
from ttt3r.weights.convert import convert
from ttt3r.weights.loading import choose_device, choose_precision, load
from ttt3r.weights.network import build
from ttt3r.weights.random import random_weights
from ttt3r.weights.sources import read_weights

__all__ = [
    "CATALOGUE",
    "FAMILIES",
    "Family",
    "WeightsSpec",
    "build",
    "choose_device",
    "choose_precision",
    "convert",
    "how_to_get",
    "licence_notice",
    "load",
    "random_weights",
    "read_weights",
    "weights_folder",
]
