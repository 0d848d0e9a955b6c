"""Names and shapes of the released networks lead to their configurations."""

import json
import logging

import pytest
import torch

from tests.goldens import goldens
from ttt3r.models.fast3r_config import Fast3rConfig
from ttt3r.models.point3r_config import Point3rConfig
from ttt3r.models.vggt_config import StreamVggtConfig, VggtConfig
from ttt3r.weights.families import FAMILIES, Config, Published, recognise
from ttt3r.weights.network import check_fit, clean_tensors, expected_shapes, shapes_of

RELEASED: dict[str, Config] = {
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
        config = family.configure(shapes_of(tensors), Published())
    assert config == RELEASED[name] and not caplog.records
    family.check(config, shapes_of(tensors))
    check_fit(expected_shapes(config), tensors)
