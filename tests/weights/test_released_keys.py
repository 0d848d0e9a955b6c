"""Names and shapes of the released networks lead to their configurations."""

import json
import logging

import pytest
import torch

from tests.goldens import goldens
from ttt3r.checkpoints.reading import Checkpoint
from ttt3r.models.config import NetworkConfig
from ttt3r.models.fast3r.config import Fast3rConfig
from ttt3r.models.point3r.config import Point3rConfig
from ttt3r.models.registry import FAMILIES, recognise
from ttt3r.models.streamvggt.config import StreamVggtConfig
from ttt3r.models.vggt.config import VggtConfig
from ttt3r.weights.network import check_fit, clean_tensors, expected_shapes, shapes_of

RELEASED: dict[str, NetworkConfig] = {
    "vggt": VggtConfig(),
    "streamvggt": StreamVggtConfig(),
    "point3r": Point3rConfig(),
    "fast3r": Fast3rConfig(),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_tensors_are_understood(name: str, caplog: pytest.LogCaptureFixture) -> None:
    keys = json.loads((goldens(name) / "full.keys.json").read_text())
    tensors = clean_tensors(
        {key: torch.empty(shape, device="meta") for key, (shape, _) in keys.items()}
    )
    family = FAMILIES[name]
    assert family in recognise(tensors)
    with caplog.at_level(logging.WARNING, "ttt3r.weights"):
        config = family.configure(shapes_of(tensors), Checkpoint())
    assert config == RELEASED[name] and not caplog.records
    family.check(config, shapes_of(tensors))
    check_fit(expected_shapes(config), tensors)
