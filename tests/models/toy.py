"""A family that is not in the package: it sees a wall two units away and drifts to the right."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ttt3r.checkpoints.shapes import Shapes, side
from ttt3r.masks import pick
from ttt3r.models.base import Capabilities, State, Tokens, Views
from ttt3r.models.config import NetworkConfig
from ttt3r.models.family import Family, Tiny
from ttt3r.models.network import StreamNetwork
from ttt3r.nn.layers import PatchEmbed
from ttt3r.rules import parse
from ttt3r.types import Reading


@dataclass(frozen=True)
class DriftConfig(NetworkConfig):
    """Sizes of the network."""

    image_size: int = 64
    patch_size: int = 16
    dim: int = 8


@dataclass(frozen=True)
class DriftState(State):
    """Mean of the tokens of the last frame, and how many frames there were."""

    on_host: ClassVar[frozenset[str]] = frozenset({"age"})

    mean: Float[Tensor, "batch channels"]
    age: Int[Tensor, " batch"]


class Drift(StreamNetwork):
    """The network."""

    capabilities = Capabilities(outputs=("points", "pose"), constant_memory=True)
    config: DriftConfig

    def __init__(self, config: DriftConfig) -> None:
        super().__init__(config)
        self.drift_embed = PatchEmbed(3, config.dim, config.patch_size)

    def parse_rule(self, rule: Any = None) -> Any:
        return parse(rule)

    def initial_state(self, rule: Any, batch: int = 1) -> DriftState:
        mean = torch.zeros(batch, self.config.dim, device=self.device)
        return DriftState(mean, torch.zeros(batch, dtype=torch.int64))

    def reset(self, state: DriftState, rule: Any, which: Bool[Tensor, " batch"]) -> DriftState:
        return DriftState(
            pick(which, torch.zeros_like(state.mean), state.mean), state.age.masked_fill(which, 0)
        )

    def encode(self, views: Views) -> Tokens:
        image, size, has_image = self.images_of(views)
        return Tokens(self.drift_embed(image), size, has_image)

    def step(
        self,
        state: DriftState,
        tokens: Tokens,
        rule: Any,
        outputs: Collection[str] = ("points", "pose"),
        update: Bool[Tensor, " batch"] | None = None,
    ) -> tuple[DriftState, Reading]:
        wanted = self.capabilities.check(outputs)
        update = tokens.written(update)
        height, width = tokens.size
        rows = (torch.arange(height) - height / 2) * 2 / height
        columns = (torch.arange(width) - width / 2) * 2 / height
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        points = torch.stack((x, y, torch.full_like(x, 2.0)), -1).to(self.device)
        encoding = points.new_tensor([0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0]).repeat(len(state.age), 1)
        encoding[:, 0] = 0.1 * state.age
        reading = Reading(
            points=points.expand(len(state.age), -1, -1, -1),
            confidence=torch.full((len(state.age), height, width), 2.0, device=self.device),
            pose_encoding=encoding,
        )
        mean = pick(update, tokens.features.mean(1), state.mean)
        return DriftState(mean, state.age + update), reading.only(wanted)


def found_sizes(shapes: Shapes) -> dict[str, Any]:
    return {"dim": side(shapes, "drift_embed.proj.weight", 0, 4)}


DRIFT = Family(
    name="drift",
    title="Drift",
    config=DriftConfig,
    network=Drift,
    marks=("drift_embed.",),
    found=found_sizes,
    needed=("dim",),
    tiny=(Tiny("tiny-drift", "Random weights.", DriftConfig()),),
)
