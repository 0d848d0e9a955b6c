"""Every rule inside the network against its readable twin, frame by frame."""

import copy

import numpy as np
import pytest
import torch

from tests.dense import DenseCut3r, attend, merge, split
from tests.networks import random_images, random_tiny
from tests.rules.test_rules import EXAMPLES
from tests.rules.twins import TWINS, Seen, follow
from ttt3r.errors import SettingError
from ttt3r.models.base import Views
from ttt3r.models.evidence import LogitProbe
from ttt3r.rules import (
    REGISTRY,
    Damped,
    Filt3r,
    Memix,
    Ortho,
    Overwrite,
    Paced,
    Recal3r,
    Split,
    Ttt3r,
)
from ttt3r.stream.clips import open_session
from ttt3r.stream.session import Session
from ttt3r.weights import load

# Constants under which the parts of a rule that rest by default come to work.
OTHERS = {
    "memix chunks": Memix(Ttt3r(), 0.5, chunks=8, protect=1),
    "memix all": Memix(Overwrite(), 0.0),
    "filt3r open": Filt3r(slope=6.0, threshold=1.0, most_noise=0.9, rate=0.3, growth=0.9),
    "recal3r mean": Recal3r(keep=0.5, base=0.3),
    "recal3r min": Recal3r(entropy="min"),
    "ortho": Ortho(),
    "ortho threshold": Ortho(0.7, 0.2, 0.8, "threshold"),
    "paced ttt3r": Paced(Ttt3r(), keep=0.5),
    "damped paced": Damped(Paced(Filt3r()), 0.5),
}
RULES = {**EXAMPLES, **OTHERS}
GRID = (3, 4)


def test_every_registered_rule_has_a_twin():
    assert TWINS.keys() == set(REGISTRY.names)


@pytest.fixture(scope="module")
def network():
    """In float64, so that a rule that is only nearly right is seen."""
    return copy.deepcopy(random_tiny()).double()


@torch.no_grad()
@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_network_equals_its_twin(rule, network):
    """The fourth frame is not written: to the twin it never was.

    The angles of the position embedding are float32 in the dense twin, which moves numbers by 1e-8.
    """
    dense, notes = DenseCut3r(network), {}
    state = network.initial_state(rule)
    for index, image in enumerate(random_images(6).double()):
        tokens, update = network.encode(Views(image[None])), index != 3
        pose_token = (
            dense.read_memory(tokens.features.mean(1, keepdim=True), state.pose_memory)
            if index
            else dense.weights["pose_token"]
        )
        layers, candidate, logits = dense.decode(state.tokens, tokens.features, pose_token, GRID)
        seen = Seen(
            state=state.tokens[0].numpy(),
            candidate=candidate[0].numpy(),
            logits=torch.cat(logits.state_cross).numpy(),
            features=tokens.features[0].numpy(),
            given=dense.linear("decoder_embed", tokens.features)[0].numpy(),
            made=layers[-1][0, 1:].numpy(),
        )
        state, output = network.step(state, tokens, rule, ("pose",), torch.tensor([update]))
        assert output.gate is not None
        if not update:
            assert np.array_equal(state.tokens[0].numpy(), seen.state) and not output.gate.any()
            continue
        gate, expected = follow(rule, seen, notes)
        np.testing.assert_allclose(output.gate[0].numpy(), gate, rtol=0, atol=1e-6)
        np.testing.assert_allclose(state.tokens[0].numpy(), expected, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("rule", [Overwrite(), Ttt3r(), Ortho(), Filt3r()], ids=lambda r: r.name)
def test_pose_memory_equals_its_twin(rule, network):
    """Its slots attend to one entry; logits are formed here without the package's attention."""
    dense, notes = DenseCut3r(network), {}
    state, both = network.initial_state(rule), Split(Ttt3r(), rule)
    nothing = np.zeros((0, 1))
    for index, image in enumerate(random_images(4).double()):
        tokens = network.encode(Views(image[None]))
        decoded = network._decode(state, tokens, state.age == 0, LogitProbe(()))
        feature, memory = decoded.global_feature, state.pose_memory
        entry = torch.cat(
            (dense.linear("pose_retriever.proj_q", feature), decoded.pose_token), dim=-1
        )
        written, logits = memory, []
        for layer in range(network.config.memory_depth):
            name, heads = f"pose_retriever.write_blocks.{layer}", network.config.decoder_heads
            query, key, value = dense.split_qkv(
                f"{name}.attn", dense.norm(f"{name}.norm1", written), heads
            )
            mixed = written + dense.linear(f"{name}.attn.proj", merge(attend(query, key, value)))
            query = dense.linear(f"{name}.cross_attn.projq", dense.norm(f"{name}.norm2", mixed))
            key = dense.linear(f"{name}.cross_attn.projk", dense.norm(f"{name}.norm_y", entry))
            query, key = split(query, heads), split(key, heads)
            logits.append(query @ key.mT / query.shape[-1] ** 0.5)
            written = dense.decoder_block(name, (written, entry))
        whole = torch.cat(logits).numpy()
        seen = Seen(memory[0].numpy(), written[0].numpy(), whole, nothing, nothing, nothing)
        state, _ = network.step(state, tokens, both, ())
        expected = follow(rule, seen, notes)[1]
        np.testing.assert_allclose(state.pose_memory[0].numpy(), expected, rtol=0, atol=1e-9)
        if index:
            assert not np.allclose(expected, seen.candidate) or rule == Overwrite()


def test_a_session_takes_a_rule_for_the_pose_memory():
    model = random_tiny()
    session = Session(model, "ttsa3r", pose_memory="damped(ttt3r, 0.5)")
    assert session.rule == Split(REGISTRY.parse("ttsa3r"), Damped(Ttt3r(), 0.5))
    assert Session(model, "split(ttt3r, overwrite)").rule == Split(Ttt3r(), Overwrite())
    for other in ("tiny-point3r", "tiny-vggt"):
        with pytest.raises(SettingError, match="only CUT3R"):
            open_session(load(other, "cpu"), pose_memory="ttt3r")
    with pytest.raises(SettingError, match="outermost"):
        Session(model, "split(ttt3r, overwrite)", pose_memory="ttt3r")
