"""What a picture or a page of a run says about it in words."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What was run, in words.

    Attributes:
        title: name of the run.
        lines: settings, in a few words each.
        unit: of lengths.
        status: as the manifest says it.
        trained: whether the weights were trained.
    """

    title: str = "run"
    lines: tuple[str, ...] = ()
    unit: str = "units"
    status: str = "complete"
    trained: bool = True

    @property
    def warning(self) -> str:
        """What the reader must know first; empty for nothing."""
        if not self.trained:
            return "The weights are not trained: this is not a reconstruction."
        if self.status not in ("complete", "running"):
            return f"This run is not complete: {self.status}."
        return ""


def facts_of(name: str, manifest: Mapping[str, Any]) -> Facts:
    """The facts that a run's manifest knows; what it lacks is left out."""
    model = manifest.get("model") or {}
    named = {"model": model.get("name")}
    named |= {key: manifest.get(key) for key in ("rule", "reset", "stitch")}
    return Facts(
        title=name,
        lines=tuple(f"{key} {value}" for key, value in named.items() if value),
        unit="m" if model.get("metric") else "units",
        status=str(manifest.get("status", "complete")),
        trained=model.get("trained") is not False,
    )
