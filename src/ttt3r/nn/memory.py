"""Pose memory: learned slots that remember how frames looked and where they were taken."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ttt3r.nn.attention import Probe
from ttt3r.nn.blocks import DecoderBlock
from ttt3r.nn.layers import Linear, at_least_float32


class PoseMemory(nn.Module):
    """Key-value memory from a frame's global feature to its pose token (CUT3R, section 3.2).

    Args:
        feature_dim: channels of the global feature.
        dim: channels of a pose token; a slot holds 2 · dim.
        slots: number of slots.
        depth: blocks in the reader and in the writer.
        heads: attention heads.
        mlp_ratio: hidden width of the MLPs over their input width.
    """

    def __init__(
        self, feature_dim: int, dim: int, slots: int, depth: int, heads: int, mlp_ratio: int
    ) -> None:
        super().__init__()
        self.mem = nn.Parameter(torch.zeros(1, slots, 2 * dim))
        self.masked_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.proj_q = Linear(feature_dim, dim)
        self.write_blocks = nn.ModuleList(
            DecoderBlock(2 * dim, heads, mlp_ratio) for _ in range(depth)
        )
        self.read_blocks = nn.ModuleList(
            DecoderBlock(2 * dim, heads, mlp_ratio) for _ in range(depth)
        )

    def initial(self, batch: int) -> Float[Tensor, "batch slots wide"]:
        """Return the learned content before the first frame."""
        return self.mem.expand(batch, -1, -1).clone()

    def read(
        self,
        feature: Float[Tensor, "batch 1 feature_channels"],
        memory: Float[Tensor, "batch slots wide"],
    ) -> Float[Tensor, "batch 1 channels"]:
        """Guess the pose token of a frame from its global feature."""
        query = at_least_float32(self.proj_q(feature))
        x = torch.cat((query, self.masked_token.expand_as(query)), dim=-1)
        for block in self.read_blocks:
            x = block(x, memory)
        return x[..., query.shape[-1] :]

    def write(
        self,
        memory: Float[Tensor, "batch slots wide"],
        feature: Float[Tensor, "batch 1 feature_channels"],
        pose_token: Float[Tensor, "batch 1 channels"],
        probe: Probe | None = None,
    ) -> Float[Tensor, "batch slots wide"]:
        """Return the memory after it has seen a frame's feature and refined pose token.

        Args:
            memory: before the frame.
            feature: of the frame.
            pose_token: as the decoder refined it.
            probe: called in each layer with the queries of the slots and the key of the frame.
        """
        entry = torch.cat((at_least_float32(self.proj_q(feature)), pose_token), dim=-1)
        for block in self.write_blocks:
            memory = block(memory, entry, probe=probe)
        return memory
