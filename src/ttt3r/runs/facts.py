"""What a picture or a page of a run says about it in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ttt3r.runs.placement import Placement


@dataclass(frozen=True)
class Facts:
    """What was run, in words.

    Attributes:
        title: name of the run.
        lines: settings, in a few words each.
        unit: of lengths.
        status: as the manifest says it.
        trained: whether the weights were trained.
        scale: factor of the network's lengths to get those that are shown.
        aligned: whether known positions say it.
    """

    title: str = "run"
    lines: tuple[str, ...] = ()
    unit: str = "units"
    status: str = "complete"
    trained: bool = True
    scale: float = 1.0
    aligned: bool = False

    @property
    def warning(self) -> str:
        """What the reader must know first; empty for nothing."""
        if not self.trained:
            return "The weights are not trained: this is not a reconstruction."
        if self.status not in ("complete", "running"):
            return f"This run is not complete: {self.status}."
        return ""


def is_metric(manifest: Mapping[str, Any], placement: Placement) -> bool:
    """Whether the lengths of a run are metres, by its weights or by where it was moved."""
    if placement.metric is not None:
        return placement.metric
    return bool((manifest.get("model") or {}).get("metric"))


def scale_text(manifest: Mapping[str, Any], placement: Placement) -> str:
    """What says the lengths of a run, for people."""
    if placement.metric is not None:
        return placement.world_text or "metric by its placement"
    return "metric by the weights" if is_metric(manifest, placement) else "unknown"


def facts_of(name: str, manifest: Mapping[str, Any], placement: Placement | None = None) -> Facts:
    """The facts that a run's manifest knows; what it lacks is left out.

    Args:
        name: of the run.
        manifest: of the run.
        placement: where it was moved; None if it was not.
    """
    placement = Placement() if placement is None else placement
    model = manifest.get("model") or {}
    named = {"model": model.get("name")}
    named |= {key: manifest.get(key) for key in ("rule", "reset", "stitch")}
    moved = (placement.world_text,) if placement.world_text else ()
    return Facts(
        title=name,
        lines=(*(f"{key} {value}" for key, value in named.items() if value), *moved),
        unit="m" if is_metric(manifest, placement) else "units",
        status=str(manifest.get("status", "complete")),
        trained=model.get("trained") is not False,
        scale=placement.scale,
        aligned=placement.is_aligned,
    )
