"""MeMix's rule: write only the tokens that the frame is least like."""

from dataclasses import dataclass, field
from math import ceil
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import Evidence, EvidenceKind, Rule, RuleMemory, RuleStep, Unwritten
from ttt3r.rules.ttt3r import Ttt3r
from ttt3r.rules.wrapping import Wrapping


@dataclass(frozen=True)
class Memix(Wrapping):
    """Any rule, for a selection of the tokens; the others keep what they hold (arXiv 2603.15330).

    The state is cut into chunks, and each is scored by the mean of ⟨Ŝ_n, mean_j D f_j⟩, where D f
    are the projected features of the frame. The chunks with the highest scores are kept untouched,
    also on the first frame of a segment. The inner rule's memory follows all tokens.
    Where reading is sparse too, the same selection among the tokens S_{t−1} that the frame meets is
    all that the frame's pose token reads of the state; its patches read all.

    Args:
        rule: how the selected tokens are written; published with `overwrite`, `ttt3r`, `ttsa3r`.
        keep: share of the chunks that is kept, in [0, 1); 60 of 768 as published. At least one
            chunk is written.
        chunks: number of chunks asked for; 0 stands for one token each. They have one length,
            so that there may be fewer.
        protect: number of a chunk that is never written; -1 for none.
        sparse_read: let the pose token read the selected tokens only, in every decoder layer.

    Raises:
        SettingError: if `keep` is outside [0, 1), or `chunks` or `protect` is too small.
    """

    rule: Rule = field(default_factory=Ttt3r)
    keep: float = 60 / 768
    chunks: int = 0
    protect: int = -1
    sparse_read: bool = False

    name: ClassVar[str] = "memix"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep < 1:
            raise SettingError(f"keep of memix must be in [0, 1), not {self.keep}")
        if self.chunks < 0 or self.protect < -1:
            raise SettingError("chunks of memix must not be negative, nor protect below -1")

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """The inner rule's, and the projected features."""
        own: frozenset[EvidenceKind] = frozenset({"projected_features"})
        return self.rule.evidence | own

    @property
    def unwritten(self) -> Unwritten:
        """As the inner rule, but the state never moves."""
        return "nothing" if self.rule.unwritten == "nothing" else "memory"

    def pose_reads(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        projected: Float[Tensor, "batch patches channels"],
    ) -> Bool[Tensor, "batch tokens"] | None:
        """The selection among the tokens as they are, if reading is sparse."""
        if self.sparse_read:
            return self.select(previous, projected)
        return super().pose_reads(previous, projected)

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Start the inner rule for the selection; the other tokens stay as the state begins."""
        step = self.rule.start(previous, candidate, evidence)
        return self._only_selected(previous, candidate, evidence, step)

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Apply the inner rule to the selection."""
        step = self.rule.apply(previous, candidate, evidence, memory)
        return self._only_selected(previous, candidate, evidence, step)

    def _only_selected(
        self, previous: Tensor, candidate: Tensor, evidence: Evidence, step: RuleStep
    ) -> RuleStep:
        chosen = self.select(candidate, evidence.get("projected_features"))
        return RuleStep(
            state=torch.where(chosen[..., None], step.state, previous),
            gate=step.gate.masked_fill(~chosen, 0.0),
            memory=step.memory,
        )

    def select(
        self,
        tokens: Float[Tensor, "batch tokens channels"],
        projected: Float[Tensor, "batch patches channels"],
    ) -> Bool[Tensor, "batch tokens"]:
        """Return which tokens are chosen: to be written, given what they would become."""
        count = tokens.shape[1]
        asked = min(self.chunks or count, count)
        wanted = max(asked - round(self.keep * asked), 1)
        if asked <= 1 or wanted >= asked:
            return torch.ones_like(tokens[..., 0], dtype=torch.bool)
        length = ceil(count / asked)
        scores = (tokens * projected.mean(dim=1, keepdim=True)).sum(-1)
        sizes = scores.new_ones(count).split(length)
        padded = F.pad(scores, (0, length * len(sizes) - count))
        sums = padded.unflatten(1, (len(sizes), length)).sum(-1)
        scores = sums / torch.stack([size.sum() for size in sizes])
        chunks = len(sizes)
        if 0 <= self.protect < chunks:
            scores = scores.index_fill(
                1, torch.tensor(self.protect, device=scores.device), torch.inf
            )
            chunks -= 1
        order = scores.argsort(dim=-1, stable=True)
        chosen = torch.zeros_like(scores, dtype=torch.bool)
        chosen = chosen.scatter(1, order[:, : min(wanted, chunks)], True)
        return chosen.repeat_interleave(length, dim=1)[:, :count]
