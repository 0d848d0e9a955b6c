"""Published files that other programs have downloaded to this machine, found without a net."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ttt3r.weights.catalogue import PublishedFile, WeightsSpec
from ttt3r.weights.fetching.places import Place


def find_elsewhere(spec: WeightsSpec) -> dict[str, Path] | None:
    """Return the files of `spec` that other programs have, by name; None if any is missing.

    Only names and sizes are compared, so what is found must be checked before it is used.
    """
    for files in (spec.files, *((file,) for file in spec.also)):
        found = _find_all(files)
        if found:
            return found
    return None


def _find_all(files: Sequence[PublishedFile]) -> dict[str, Path] | None:
    found: dict[str, Path] = {}
    for file in files:
        path = next((path for path in _candidates(file) if _fits(path, file)), None)
        if path is None:
            return None
        found[file.name] = path
    return found


def _candidates(file: PublishedFile) -> Iterator[Path]:
    """Where the clients of hubs and PyTorch keep a file: the known version first."""
    for place in map(Place, file.places):
        if place.hub_file is None:
            continue
        repository, revision, name = place.hub_file
        kind, bare = "models", repository
        if repository.startswith("datasets/"):
            kind, bare = "datasets", repository.removeprefix("datasets/")
        snapshots = hub_cache() / f"{kind}--{bare.replace('/', '--')}" / "snapshots"
        yield snapshots / revision / name
        yield from sorted(snapshots.glob(f"*/{name}"))
    yield torch_cache() / file.name


def _fits(path: Path, file: PublishedFile) -> bool:
    """Whether a path is a file of the right length; a common name alone says nothing."""
    try:
        size = path.stat().st_size if path.is_file() else None
    except OSError:
        return False
    return size is not None and size == file.size


def hub_cache() -> Path:
    """The cache of the Hugging Face hub's client."""
    if chosen := os.environ.get("HF_HUB_CACHE"):
        return Path(chosen).expanduser()
    home = os.environ.get("HF_HOME")
    return (Path(home).expanduser() if home else _cache() / "huggingface") / "hub"


def torch_cache() -> Path:
    """Where ``torch.hub`` keeps checkpoints."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else _cache() / "torch") / "hub" / "checkpoints"


def _cache() -> Path:
    chosen = os.environ.get("XDG_CACHE_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache"
