"""Put tensors into a network, strictly: every key must fit, none may be left over."""

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ttt3r.checkpoints.shapes import Shapes
from ttt3r.errors import WeightsError
from ttt3r.models.config import NetworkConfig
from ttt3r.models.network import SetNetwork, StreamNetwork
from ttt3r.models.registry import family_of

LISTED = 10
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
# What parallel training, compilation and training frameworks put before every name.
PREFIXES = ("_orig_mod.", "module.", "net.", "model.")

_ALIAS = re.compile(r"(.+\.scratch\.)layer_rn\.([0-3])\.(weight|bias)")


def canonical_key(key: str) -> str:
    """Return the one name of a tensor that state dicts list twice.

    The DPT projections appear as ``scratch.layer_rn.0`` and as ``scratch.layer1_rn``, and so on.
    """
    if match := _ALIAS.fullmatch(key):
        return f"{match[1]}layer{int(match[2]) + 1}_rn.{match[3]}"
    return key


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Shape of each tensor."""
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def common_prefix(keys: Collection[str]) -> str:
    """Return what training put before every one of these names; it may be several prefixes."""
    found = ""
    while keys:
        more = [item for item in PREFIXES if all(key.startswith(found + item) for key in keys)]
        if not more:
            break
        found += more[0]
    return found


def clean_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give tensors of a published file the network's names, each once.

    Strips prefixes of training, such as ``module.``, where all names have them, and merges aliases.
    These are the same for all families; `Family.complete` does what differs.

    Raises:
        WeightsError: if two names of one tensor hold different values.
    """
    prefix = common_prefix(tensors)
    clean: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = canonical_key(key.removeprefix(prefix))
        if name in clean and not _same(clean[name], tensor):
            raise WeightsError(
                f"{key} and its other name hold different values, but the network has one tensor "
                "for both. The file is damaged, or was edited; get it again."
            )
        clean.setdefault(name, tensor)
    return clean


def _same(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    is_view = (a.data_ptr(), a.stride()) == (b.data_ptr(), b.stride())
    return a.is_meta or is_view or torch.equal(a, b)


class _NoInitialisation(TorchFunctionMode):
    """Skips the random start of parameters; on the meta device it would import PyTorch's compiler.

    That import takes a second, and the values would be replaced anyway.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def empty_network(config: NetworkConfig) -> StreamNetwork | SetNetwork:
    """Make a network without memory for its parameters."""
    with torch.device("meta"), _NoInitialisation():
        return family_of(config).network(config)


def expected_shapes(config: NetworkConfig) -> Shapes:
    """Shape of every tensor that a network of this configuration has, by canonical name."""
    state = empty_network(config).state_dict()
    return {key: shape for key, shape in shapes_of(state).items() if key == canonical_key(key)}


def check_fit(expected: Shapes, given: Mapping[str, Tensor]) -> None:
    """Check that `given` has exactly the expected floating-point tensors.

    Raises:
        WeightsError: listing what is missing, unexpected or of another shape or type.
    """
    shared = [key for key in expected if key in given]
    groups = {
        "missing": [key for key in expected if key not in given],
        "unexpected": [key for key in given if key not in expected],
        "of another shape": [
            f"{key} is {_shape(given[key].shape)}, expected {_shape(expected[key])}"
            for key in shared
            if tuple(given[key].shape) != expected[key]
        ],
        "not floating-point": [
            f"{key} is {given[key].dtype}" for key in shared if not given[key].is_floating_point()
        ],
    }
    report = [f"  {len(keys)} {kind}: {_listed(keys)}" for kind, keys in groups.items() if keys]
    if report:
        raise WeightsError(
            "the weights do not fit the network:\n"
            + "\n".join(report)
            + "\nThe file is incomplete, or belongs to another network or configuration."
        )


def _shape(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a number"


def _listed(keys: list[str]) -> str:
    rest = len(keys) - LISTED
    shown = keys[:LISTED] + ([f"and {rest} more"] if rest > 0 else [])
    return ", ".join(shown)


def check_finite(key: str, tensor: Tensor) -> None:
    """Check that a float32 tensor holds numbers.

    Raises:
        WeightsError: if it holds an infinity or a NaN.
    """
    # The sum is cheap and not finite if any value is not; it may overflow when all of them are.
    if not tensor.sum().isfinite() and not tensor.isfinite().all():
        raise WeightsError(
            f"{key} holds infinite or undefined values, so the weights are damaged or their "
            "training diverged. Get the file again, or use another checkpoint."
        )


def build(
    config: NetworkConfig, tensors: Mapping[str, Tensor], precision: torch.dtype = torch.float32
) -> StreamNetwork | SetNetwork:
    """Make a network of `config` with these weights.

    In float32, tensors that are float32 already are used as they are, without a copy. In lower
    precision every tensor is copied, so that the memory of `tensors` can be let go.

    Args:
        config: the network's configuration.
        tensors: its weights, by upstream's names.
        precision: of most products; see `set_precision` of the network.

    Raises:
        WeightsError: if configuration and tensors do not fit, or values are not finite.
    """
    family = family_of(config)
    tensors = family.complete(clean_tensors(tensors))
    family.check(config, shapes_of(tensors))
    network = empty_network(config).set_precision(precision)
    state = network.state_dict()
    check_fit({canonical_key(key): shape for key, shape in shapes_of(state).items()}, tensors)
    ready: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        ready[key] = tensor.to(state[key].dtype, copy=precision != torch.float32)
        check_finite(key, ready[key])
    network.load_state_dict({key: ready[canonical_key(key)] for key in state}, assign=True)
    return network
