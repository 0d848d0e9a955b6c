"""Collects what an update rule declared it wants to know about the state's cross-attention."""

from collections.abc import Collection

from jaxtyping import Float
from torch import Tensor

from ttt3r.nn.layers import at_least_float32
from ttt3r.rules.base import Evidence, EvidenceKind

LOGIT_KINDS: frozenset[EvidenceKind] = frozenset({"mean_logit", "mean_map", "attention_rows"})


class LogitProbe:
    """Running means over layers of statistics of scaled logits; lives for one step."""

    def __init__(self, kinds: Collection[EvidenceKind]) -> None:
        self._kinds = LOGIT_KINDS.intersection(kinds)
        self._sums: dict[EvidenceKind, Tensor] = {}
        self._layers = 0

    @property
    def wanted(self) -> bool:
        """Whether any statistic was asked for."""
        return bool(self._kinds)

    def __call__(
        self,
        query: Float[Tensor, "batch heads tokens dim"],
        key: Float[Tensor, "batch heads keys dim"],
    ) -> None:
        """Add one layer's rotated queries and keys."""
        heads, dim = query.shape[1], query.shape[3]
        query, key = at_least_float32(query) * dim**-0.5, at_least_float32(key)
        self._layers += 1
        if "mean_logit" in self._kinds:  # mean_j ⟨q, k_j⟩ = ⟨q, mean_j k_j⟩
            self._add("mean_logit", (query * key.mean(dim=2, keepdim=True)).sum((1, 3)) / heads)
        if "mean_map" in self._kinds:  # the sum over heads is a product over all channels
            rows = query.transpose(1, 2).flatten(2)
            columns = key.transpose(1, 2).flatten(2)
            self._add("mean_map", rows @ columns.transpose(1, 2) / heads)
        if "attention_rows" in self._kinds:
            self._add("attention_rows", (query @ key.transpose(2, 3)).softmax(-1).mean(1))

    def _add(self, kind: EvidenceKind, value: Tensor) -> None:
        self._sums[kind] = self._sums[kind] + value if kind in self._sums else value

    def evidence(
        self,
        kinds: Collection[EvidenceKind],
        patch_features: Tensor,
        projected_features: Tensor,
    ) -> Evidence:
        """Return the declared kinds and nothing else."""
        means = {kind: total / self._layers for kind, total in self._sums.items()}
        return Evidence(
            mean_logit=means.get("mean_logit"),
            mean_map=means.get("mean_map"),
            attention_rows=means.get("attention_rows"),
            patch_features=patch_features if "patch_features" in kinds else None,
            projected_features=projected_features if "projected_features" in kinds else None,
        )
