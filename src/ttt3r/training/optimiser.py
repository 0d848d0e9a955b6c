"""The optimiser of a team: each process updates its own share of the weights, and passes it on.

Matrices inside the blocks learn by `training.muon`, everything else by AdamW (arXiv 1711.05101).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ttt3r.training.muon import Muon
from ttt3r.training.recipe import Recipe
from ttt3r.training.team import Team

MUON_GAIN = 2.0  # rate of Muon over that of AdamW
BLOCKS = ("enc_blocks.", "dec_blocks", "final_transform")


def is_hidden_matrix(name: str, shape: Sequence[int]) -> bool:
    """Whether a weight is a matrix between hidden layers, which Muon is made for."""
    inside = name.startswith(BLOCKS) or any(f".{part}" in name for part in BLOCKS)
    return len(shape) == 2 and min(shape) > 32 and inside and name.endswith("weight")


def shares(sizes: Sequence[int], count: int) -> list[int]:
    """Which of `count` owners each item belongs to, so that all own about the same in total."""
    owners, load = [0] * len(sizes), [0] * count
    for index in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        owners[index] = load.index(min(load))
        load[owners[index]] += sizes[index]
    return owners


class Optimiser:
    """Updates float32 weights of which every process of a team has a copy.

    Args:
        recipe: says the rates.
        weights: by name; changed in place, alike in all processes.
        team: the processes.
    """

    def __init__(self, recipe: Recipe, weights: dict[str, Tensor], team: Team) -> None:
        self.recipe, self.weights, self.team = recipe, weights, team
        self.owners = dict(
            zip(weights, shares([w.numel() for w in weights.values()], team.size), strict=True)
        )
        mine = {name: w for name, w in weights.items() if self.owners[name] == team.rank}
        self.names = {id(w): name for name, w in mine.items()}
        hidden = [w for name, w in mine.items() if is_hidden_matrix(name, w.shape)]
        taken = {id(w) for w in hidden}
        rest = [w for w in mine.values() if id(w) not in taken]
        decay = recipe.weight_decay
        groups = [
            {"params": [w for w in rest if w.ndim > 1], "weight_decay": decay},
            {"params": [w for w in rest if w.ndim <= 1], "weight_decay": 0.0},
        ]
        self.adam = torch.optim.AdamW(
            [group for group in groups if group["params"]], betas=(0.9, 0.97), fused=True
        )
        self.muon = Muon(hidden, weight_decay=decay) if hidden else None

    @property
    def parts(self) -> list[torch.optim.Optimizer]:
        """The optimisers of this process."""
        return [self.adam, *([self.muon] if self.muon else [])]

    def step(self, step: int, gradients: dict[str, Tensor]) -> float:
        """Change the weights by one step; a gradient that is not finite changes nothing.

        Args:
            step: number of the step, from which the rate follows.
            gradients: means over the team, float32, by name; they are scaled in place.

        Returns:
            The norm of the gradient before it was clipped.
        """
        norm = float(torch.stack([g.square().sum() for g in gradients.values()]).sum().sqrt())
        if norm < float("inf"):  # a single broken batch must not end hours of work
            factor = min(1.0, self.recipe.clip_gradient / (norm + 1e-6))
            for name, weight in self.weights.items():
                weight.grad = gradients[name].mul_(factor)
            rate = self.recipe.learning_rate * self.recipe.rate(step)
            for part in self.parts:
                for group in part.param_groups:
                    group["lr"] = rate * (MUON_GAIN if part is self.muon else 1.0)
                part.step()
            for weight in self.weights.values():
                weight.grad = None
            for name, weight in self.weights.items():
                self.team.share(weight, self.owners[name])
        return norm

    def state(self) -> dict[str, Tensor]:
        """What this process's optimisers remember, as tensors by "weight|value"."""
        return {
            f"{self.names[id(weight)]}|{key}": value
            for part in self.parts
            for weight, values in part.state.items()
            for key, value in values.items()
            if isinstance(value, Tensor)
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned, in a team of the same size."""
        for part in self.parts:
            for group in part.param_groups:
                for weight in group["params"]:
                    prefix = f"{self.names[id(weight)]}|"
                    part.state[weight] = {
                        key.removeprefix(prefix): value.to(
                            "cpu" if key.endswith("|step") and not value.ndim else weight.device
                        )
                        for key, value in state.items()
                        if key.startswith(prefix)
                    }


def flat_gradients(
    parameters: Sequence[nn.Parameter], gradients: Sequence[Tensor | None]
) -> Tensor:
    """All gradients as one float32 vector, zero where there is none."""
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).float().flatten()
            for p, g in zip(parameters, gradients, strict=True)
        ]
    )


def as_named(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """Views of a vector in the shapes of named tensors."""
    pieces = flat.split([tensor.numel() for tensor in like.values()])
    return {
        name: piece.view(tensor.shape)
        for (name, tensor), piece in zip(like.items(), pieces, strict=True)
    }
