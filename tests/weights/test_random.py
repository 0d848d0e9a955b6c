"""Random weights are the same on every machine, for ever."""

import torch

from ttt3r.weights.catalogue import CATALOGUE
from ttt3r.weights.random import random_weights, tensors_sha256

# Whoever changes these numbers changes everything that was made with the random networks.
DIGESTS = {
    "tiny-dpt": "4d079305e88473b6ddbca7fb63a0184e668545482c63089eb023e3eb6a60cedb",
    "tiny-linear": "e2f4256422b4d5e75f204d429a636185c4a5ec4beacdc93bdf075ba6d3329d07",
    "tiny-vggt": "566521e011d6f7cd0deaec073cf2beccd3fa104df26a95a82eebacd30fe138d3",
    "tiny-streamvggt": "566521e011d6f7cd0deaec073cf2beccd3fa104df26a95a82eebacd30fe138d3",
    "tiny-point3r": "4ef4a952a2cf6f0164312b565961ecb5063607b3b593a914b47cbc5e916690be",
    "tiny-fast3r": "a5b202f8e0f89e2e3ee6d3717087d1bbf7f4ce18b743d6e1d48f6062a497bdfa",
}


def test_random_weights_never_change() -> None:
    for name, digest in DIGESTS.items():
        config = CATALOGUE[name].random_config
        assert config is not None
        assert tensors_sha256(random_weights(config)) == digest


def test_seeds_and_keys_give_different_numbers() -> None:
    config = CATALOGUE["tiny-linear"].random_config
    assert config is not None
    first, second = random_weights(config, 0), random_weights(config, 1)
    key, other = "enc_blocks.0.attn.proj.weight", "enc_blocks.1.attn.proj.weight"
    assert not torch.equal(first[key], second[key])
    assert not torch.equal(first[key], first[other])
    assert torch.equal(first["enc_norm.weight"], torch.ones(64))
    spread = first[key].std().item() * 64**0.5
    assert 0.9 < spread < 1.1


def test_the_digest_depends_on_names_types_and_values() -> None:
    a = torch.arange(4.0)
    digests = {
        tensors_sha256({"a": a}),
        tensors_sha256({"b": a}),
        tensors_sha256({"a": a.reshape(2, 2)}),
        tensors_sha256({"a": a + 1}),
        tensors_sha256({"a": a.half()}),
    }
    assert len(digests) == 5
    assert tensors_sha256({"a": a, "b": a}) == tensors_sha256({"b": a, "a": a})
