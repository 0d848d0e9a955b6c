"""What the configurations of all networks have in common: JSON and back."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar

from ttt3r.errors import WeightsError

AnyConfig = TypeVar("AnyConfig", bound="NetworkConfig")


class NetworkConfig:
    """Base of the frozen dataclasses that decide shapes and arithmetic of a network."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values; infinities become the string "inf"."""
        return _plain(asdict(self))  # pyright: ignore[reportArgumentType]

    @classmethod
    def from_dict(cls: type[AnyConfig], values: Mapping[str, Any]) -> AnyConfig:
        """Rebuild a configuration from `to_dict`.

        Raises:
            WeightsError: if a field is unknown or has the wrong form.
        """
        known = {field.name for field in fields(cls)}  # pyright: ignore[reportArgumentType]
        unknown = sorted(set(values).difference(known))
        if unknown:
            raise WeightsError(
                f"the configuration has unknown fields: {', '.join(unknown)}. "
                "It may come from a newer version of ttt3r; upgrade, or convert the weights again."
            )
        try:
            return cls(**cls._typed(dict(values)))
        except (TypeError, ValueError, KeyError) as error:
            raise WeightsError(f"the configuration cannot be read: {error}") from error

    @classmethod
    def _typed(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Turn JSON values into those that the constructor takes; may raise what `int` raises."""
        return values


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return "inf" if value == math.inf else value
