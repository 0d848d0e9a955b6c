"""What a network cannot say is refused before it looks, by every family and in every way."""

import pytest
import torch

from ttt3r.errors import SettingError
from ttt3r.models.base import StreamModel, Views
from ttt3r.models.registry import FAMILIES
from ttt3r.stream.clips import open_session
from ttt3r.stream.reconstruct import reconstruct
from ttt3r.types import OUTPUTS
from ttt3r.weights import CATALOGUE, load

TINY = {spec.family: spec.name for spec in CATALOGUE.values() if spec.random_config is not None}


@torch.no_grad()
@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_network_cannot_say_is_refused(family: str):
    model = load(TINY[family], "cpu")
    side = 4 * model.preparation.patch
    for output in {*OUTPUTS, "normals"} - set(model.capabilities.outputs):
        wanted = ("points", output)
        with pytest.raises(SettingError, match=output):
            open_session(model, outputs=wanted)
        with pytest.raises(SettingError, match=output):
            reconstruct([], model=model, outputs=wanted)
        with pytest.raises(SettingError, match=output):
            if isinstance(model, StreamModel):
                tokens = model.encode(Views(torch.zeros(1, 3, side, side)))
                rule = model.parse_rule()
                model.step(model.initial_state(rule), tokens, rule, wanted)
            else:
                model.predict(torch.zeros(1, 2, 3, side, side), wanted)
