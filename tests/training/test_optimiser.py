"""Muon against PyTorch's, the split of the weights, and a step that a team takes together."""

from collections.abc import Callable

import pytest
import torch

from tests.training.toy import recipe
from ttt3r.training.muon import Muon, orthogonal
from ttt3r.training.optimiser import Optimiser, as_named, flat_gradients, is_hidden_matrix, shares
from ttt3r.training.team import Alone


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(40, 64), (64, 40)])
def test_muon_equals_pytorchs_but_for_rounding(shape: tuple[int, int]) -> None:
    if not hasattr(torch.optim, "Muon"):
        pytest.skip("this PyTorch has no Muon")
    start = random(*shape)
    ours, theirs = (start.clone().requires_grad_() for _ in range(2))
    pairs = (
        (ours, Muon([ours], lr=0.01, weight_decay=0.1)),
        (
            theirs,
            torch.optim.Muon(
                [theirs], lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            ),
        ),
    )
    for step in range(3):
        for weight, optimiser in pairs:
            weight.grad = random(*shape, seed=step + 1)
            optimiser.step()
    off = (ours - theirs).norm() / (ours - start).norm()
    assert off < 0.03  # PyTorch multiplies in bfloat16, which has three digits


def test_updates_are_near_orthogonal() -> None:
    values = torch.linalg.svdvals(orthogonal(random(40, 64)))
    assert values.min() > 0.5 and values.max() < 1.3  # what the iteration is made for


def test_matrices_inside_blocks_are_the_hidden_ones() -> None:
    assert is_hidden_matrix("enc_blocks.0.mlp.fc1.weight", (256, 64))
    assert is_hidden_matrix("downstream_head.final_transform.0.attn.qkv.weight", (192, 64))
    for name, shape in (
        ("enc_blocks.0.mlp.fc1.bias", (256,)),
        ("downstream_head.proj.fc1.weight", (256, 64)),
        ("patch_embed.stem1.weight", (64, 64, 3, 3)),
        ("enc_blocks.0.attn.proj.weight", (64, 16)),
    ):
        assert not is_hidden_matrix(name, shape), name


def test_owners_share_evenly() -> None:
    sizes = [7, 1, 5, 3, 4, 4]
    owners = shares(sizes, 2)
    totals = [sum(s for s, o in zip(sizes, owners, strict=True) if o == k) for k in (0, 1)]
    assert totals == [12, 12]
    assert shares(sizes, 1) == [0] * 6


def weights() -> dict[str, torch.Tensor]:
    return {
        "enc_blocks.0.attn.proj.weight": random(48, 48),
        "pose_token": random(1, 1, 48, seed=1),
        "dec_norm.bias": random(48, seed=2),
    }


def test_what_is_remembered_can_be_restored() -> None:
    def steps(optimiser: Optimiser, numbers: range) -> None:
        for number in numbers:
            gradients = {
                name: random(*w.shape, seed=10 + number) for name, w in optimiser.weights.items()
            }
            optimiser.step(number, gradients)

    whole = Optimiser(recipe(), weights(), Alone())
    steps(whole, range(4))
    first = Optimiser(recipe(), weights(), Alone())
    steps(first, range(2))
    second = Optimiser(recipe(), first.weights, Alone())
    second.restore({name: value.clone() for name, value in first.state().items()})
    steps(second, range(2, 4))
    for name, value in whole.weights.items():
        assert torch.equal(value, second.weights[name]), name


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_broken_gradient_changes_nothing(bad: float) -> None:
    optimiser = Optimiser(recipe(), weights(), Alone())
    gradients = {name: torch.ones_like(w) for name, w in optimiser.weights.items()}
    gradients["pose_token"][0, 0, 3] = bad
    optimiser.step(0, gradients)
    for name, value in weights().items():
        assert torch.equal(value, optimiser.weights[name]), name


def test_large_gradients_are_clipped_to_the_same_step() -> None:
    steps: list[dict[str, torch.Tensor]] = []
    make: Callable[[], Optimiser] = lambda: Optimiser(recipe(), weights(), Alone())  # noqa: E731
    for factor in (10.0, 1000.0):
        optimiser = make()
        gradients = {name: factor * random(*w.shape) for name, w in optimiser.weights.items()}
        norm = optimiser.step(0, gradients)
        assert norm > 1
        steps.append(optimiser.weights)
    for name, value in steps[0].items():
        torch.testing.assert_close(value, steps[1][name], atol=1e-5, rtol=1e-4)


def test_gradients_pass_through_one_vector() -> None:
    values = weights()
    parameters = [torch.nn.Parameter(value) for value in values.values()]
    gradients = [random(*p.shape, seed=5) for p in parameters[:2]]
    named = as_named(flat_gradients(parameters, [*gradients, None]), values)
    assert [torch.equal(named[n], g) for n, g in zip(values, gradients, strict=False)] == [True] * 2
    assert not named["dec_norm.bias"].any()
