"""A rule of our own: any rule, paced by how much the view changes instead of by frames."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.errors import SettingError
from ttt3r.rules.base import Evidence, EvidenceKind, Rule, RuleMemory, RuleStep, check_size
from ttt3r.rules.wrapping import Wrapping

OWN = ("features", "pace")


@dataclass(frozen=True)
class Paced(Wrapping):
    """A gate g becomes 1 − (1 − g)^a, with a in [0, 1] for how much of a usual change is seen.

    A gate g per frame leaves (1 − g)^n of a token's old content after n frames, also while the
    camera stands still and the frames say the same again and again. Here the exponent counts change
    of view: c = mean_j (1 − cos(f_j, f'_j)) over the features of this frame and of the one
    before, and a = min(1, c / ĉ) with the running mean ĉ. What is forgotten along a path then
    depends less on the number of frames that show it. No paper: see docs/rules.md.

    Args:
        rule: the rule whose gate is paced.
        keep: share of the old value in the running mean, which starts with the first change.

    Raises:
        SettingError: if `keep` is outside [0, 1).
    """

    rule: Rule
    keep: float = 0.95

    name: ClassVar[str] = "paced"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.keep < 1:
            raise SettingError(f"keep of paced must be in [0, 1), not {self.keep}")

    @property
    def evidence(self) -> frozenset[EvidenceKind]:
        """The inner rule's, and the patch features."""
        own: frozenset[EvidenceKind] = frozenset({"patch_features"})
        return self.rule.evidence | own

    def start(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
    ) -> RuleStep:
        """Start the inner rule, and remember the frame; there is no pace yet, which -1 says."""
        step = self.rule.start(previous, candidate, evidence)
        own = {
            "features": evidence.get("patch_features"),
            "pace": candidate.new_full(candidate.shape[:1], -1.0),
        }
        return step._replace(memory=self._joined(own, step.memory))

    def apply(
        self,
        previous: Float[Tensor, "batch tokens channels"],
        candidate: Float[Tensor, "batch tokens channels"],
        evidence: Evidence,
        memory: RuleMemory,
    ) -> RuleStep:
        """Apply the inner rule, and go the paced share of its way."""
        features, before = evidence.get("patch_features"), memory["features"]
        check_size(features, before)
        change = (1 - torch.cosine_similarity(features, before, dim=-1)).mean(-1).clamp(min=0.0)
        pace = memory["pace"]
        pace = torch.where(pace < 0, change, torch.lerp(change, pace, self.keep))
        exponent = (change / pace.clamp(min=1e-12)).clamp(max=1.0)[:, None]
        inner = {
            name.removeprefix("inner."): item for name, item in memory.items() if name not in OWN
        }
        step = self.rule.apply(previous, candidate, evidence, inner)
        gate = 1 - (1 - step.gate).clamp(min=0.0) ** exponent
        share = torch.where(step.gate > 0, gate / step.gate.clamp(min=1e-12), exponent)
        return RuleStep(
            state=torch.lerp(previous, step.state, share[..., None]),
            gate=gate,
            memory=self._joined({"features": features, "pace": pace}, step.memory),
        )

    @staticmethod
    def _joined(own: RuleMemory, inner: RuleMemory) -> RuleMemory:
        return {**own, **{f"inner.{name}": item for name, item in inner.items()}}
