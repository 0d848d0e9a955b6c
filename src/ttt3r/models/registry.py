"""The families of networks whose weights can be read. A new family is one more line here."""

import logging
from collections.abc import Collection

from ttt3r.errors import SettingError, WeightsError
from ttt3r.models import cut3r, fast3r, point3r, streamvggt, vggt
from ttt3r.models.config import NetworkConfig
from ttt3r.models.family import Family

# Where names of tensors fit several families, the first one is meant unless something else is said.
FAMILIES: dict[str, Family] = {
    family.name: family
    for family in (
        cut3r.FAMILY,
        vggt.FAMILY,
        streamvggt.FAMILY,
        point3r.FAMILY,
        fast3r.FAMILY,
    )
}
logger = logging.getLogger("ttt3r.weights")


def family_of(config: NetworkConfig) -> Family:
    """The family that a configuration belongs to."""
    return next(family for family in FAMILIES.values() if family.config is type(config))


def family_named(name: str) -> Family:
    """The family of a name.

    Raises:
        SettingError: if there is none.
    """
    if name not in FAMILIES:
        raise SettingError(f"unknown family {name!r}; choose {', '.join(FAMILIES)}")
    return FAMILIES[name]


def recognise(keys: Collection[str]) -> tuple[Family, ...]:
    """Families that tensors of these names may belong to; none if the names tell nothing."""
    counts = {
        name: sum(key.startswith(family.marks) for key in keys) for name, family in FAMILIES.items()
    }
    most = max(counts.values())
    return tuple(FAMILIES[name] for name, count in counts.items() if count == most > 0)


def choose(keys: Collection[str], stated: Family | None) -> Family:
    """Return the family of tensors of these names.

    Args:
        keys: clean names.
        stated: what is said of them elsewhere; it decides where names cannot.

    Raises:
        WeightsError: if the names belong to another family than stated, or to none.
    """
    candidates = recognise(keys)
    if stated is not None:
        if candidates and stated not in candidates:
            raise WeightsError(
                f"these are the tensors of a {candidates[0].title} network, not of {stated.title}. "
                "Check that this is the right file, or name the right family."
            )
        return stated
    if not candidates:
        shown = ", ".join(sorted({key.split(".")[0] for key in keys})[:10]) or "nothing"
        raise WeightsError(
            "these tensors belong to no network that ttt3r knows "
            f"({', '.join(family.title for family in FAMILIES.values())}): their names begin with "
            f"{shown}. Check that this is the right file."
        )
    if len(candidates) > 1:
        logger.warning(
            "the tensors fit %s alike; they are taken for %s. If that is wrong, name the family",
            " and ".join(family.title for family in candidates),
            candidates[0].title,
        )
    return next(iter(candidates))
