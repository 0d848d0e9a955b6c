"""Collects what an update rule declared it wants to know about the state's cross-attention."""

from collections.abc import Callable, Collection
from math import log

import torch
from jaxtyping import Float
from torch import Tensor

from ttt3r.nn.layers import at_least_float32
from ttt3r.rules.base import Evidence, EvidenceKind

# Statistics of a softmax need the logits themselves: of so many queries and all heads at a time.
QUERIES = 32
MEANS: frozenset[EvidenceKind] = frozenset({"mean_logit", "mean_map"})
ENTROPIES: frozenset[EvidenceKind] = frozenset({"mean_entropy", "max_entropy", "min_entropy"})
ROWS: frozenset[EvidenceKind] = frozenset({"attention_rows"})
SOFTMAXES = ENTROPIES | ROWS


class LogitProbe:
    """Running statistics of scaled logits over layers and heads; lives for one step.

    Args:
        kinds: what to collect; kinds that are no statistics of logits are left out.
    """

    def __init__(self, kinds: Collection[EvidenceKind]) -> None:
        self._kinds = (MEANS | SOFTMAXES).intersection(kinds)
        self._kept: dict[EvidenceKind, Tensor] = {}
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
        """Add one layer's rotated queries and keys; the first key is the pose token's."""
        heads, dim = query.shape[1], query.shape[3]
        query, key = at_least_float32(query) * dim**-0.5, at_least_float32(key)
        self._layers += 1
        if "mean_logit" in self._kinds:  # mean_j ⟨q, k_j⟩ = ⟨q, mean_j k_j⟩
            mean = (query * key.mean(dim=2, keepdim=True)).sum((1, 3)) / heads
            self._keep("mean_logit", mean, torch.add)
        if "mean_map" in self._kinds:  # the sum over heads is a product over all channels
            rows = query.transpose(1, 2).flatten(2)
            columns = key.transpose(1, 2).flatten(2).transpose(1, 2)
            before = self._kept.get("mean_map", rows.new_zeros(()))
            self._kept["mean_map"] = torch.baddbmm(before, rows, columns, alpha=1 / heads)
        if SOFTMAXES & self._kinds:
            parts = [self._softmax_statistics(part, key) for part in query.split(QUERIES, dim=2)]
            for kind in parts[0]:
                whole = torch.cat([part[kind] for part in parts], dim=1)
                combine = {"max_entropy": torch.maximum, "min_entropy": torch.minimum}
                self._keep(kind, whole, combine.get(kind, torch.add))

    def _keep(
        self, kind: EvidenceKind, value: Tensor, combine: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        self._kept[kind] = combine(self._kept[kind], value) if kind in self._kept else value

    def _softmax_statistics(self, query: Tensor, key: Tensor) -> dict[EvidenceKind, Tensor]:
        """Statistics over the heads of one layer, for some of its queries."""
        logits = query @ key.mT
        found: dict[EvidenceKind, Tensor] = {}
        if "attention_rows" in self._kinds:
            found["attention_rows"] = logits.softmax(-1).mean(1)
        if ENTROPIES & self._kinds:
            entropy = entropies(logits[..., 1:])
            found["mean_entropy"] = entropy.mean(1)
            found["max_entropy"] = entropy.amax(1)
            found["min_entropy"] = entropy.amin(1)
        return {kind: value for kind, value in found.items() if kind in self._kinds}

    def evidence(
        self,
        kinds: Collection[EvidenceKind],
        patch_features: Tensor | None = None,
        projected_features: Tensor | None = None,
        image_tokens: Tensor | None = None,
    ) -> Evidence:
        """Return the declared kinds and nothing else; the arguments are kinds by themselves."""
        extremes = ("max_entropy", "min_entropy")
        statistics = {
            kind: value if kind in extremes else value / self._layers
            for kind, value in self._kept.items()
        }
        frame = {
            "patch_features": patch_features,
            "projected_features": projected_features,
            "image_tokens": image_tokens,
        }
        return Evidence(**statistics, **{kind: frame[kind] for kind in frame if kind in kinds})


def entropies(logits: Float[Tensor, "*rows keys"]) -> Float[Tensor, "*rows"]:
    """Entropy of the softmax over the last axis as a share of its largest value, in [0, 1]."""
    logarithms = logits.log_softmax(-1)
    entropy = -(logarithms.exp() * logarithms).sum(-1)
    return (entropy / max(log(logits.shape[-1]), 1e-12)).clamp(0.0, 1.0)
