"""A device that is pretended on the CPU, to count where a program would wait for a GPU.

A GPU works through a queue. The program waits for it where it reads a value (`item`, `if tensor`,
`.cpu()`, `tolist`), where the size of a result depends on values (`nonzero`, a boolean index), and
where it copies to the device without ``non_blocking=True``. `Pretended.network` moves a network's
weights to the pretended device; all that is computed from them stays there, as on a GPU: tensors of
both sides do not mix, and code that asks for the device's type is told that it is not the CPU.

Seen: all of these, by the operators that reach PyTorch's dispatcher, from Python or from within.
Not seen: waits inside kernels and libraries beyond the list below, a full queue, allocations, and
what a real backend does beyond the operator (cuDNN's choice of kernels, say). Counting is exact,
but says nothing of how long a wait lasts.
"""

import copy
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

AnyModule = TypeVar("AnyModule", bound=nn.Module)

DEVICE = torch.device("meta")  # of all devices that are no CPU, the one every build of torch knows

# "read": a value or a size comes back; "copy": a blocking copy to the device. Both wait.
# "send": a copy to the device that nobody waits for.
Kind = Literal["read", "copy", "send"]

# Operators whose result has a size that depends on values, or that check for errors on the host.
HOST_NEEDS_VALUES = {
    "aten::nonzero",
    "aten::masked_select",
    "aten::_unique2",
    "aten::unique_dim",
    "aten::unique_consecutive",
    "aten::bincount",
    "aten::_linalg_check_errors",
    "aten::_linalg_eigh",
    "aten::_linalg_svd",
    "aten::linalg_lstsq",
}
CHOICES = {"aten::_fused_sdp_choice"}  # return a number that no value decides
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class Event(NamedTuple):
    """Something that concerns both sides.

    Attributes:
        kind: see `Kind`.
        operator: name of the operator.
        place: the innermost line of this package that led to it.
    """

    kind: Kind
    operator: str
    place: str


class Pretended:
    """The pretended device, while it is active; see the module."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    @contextmanager
    def active(self) -> Iterator["Pretended"]:
        """Let tensors be made on the device, and count."""
        before = _ACTIVE[:]
        _ACTIVE[:] = [self]
        try:
            with _Factories(), _Operators():
                yield self
        finally:
            _ACTIVE[:] = before

    def network(self, network: AnyModule) -> AnyModule:
        """Return a copy of a network with its weights on the device."""
        there = copy.deepcopy(network)
        moved: dict[int, Tensor] = {}  # weights may have two names
        for module in there.modules():
            for named in (module._parameters, module._buffers):
                for name, tensor in named.items():
                    if tensor is not None:
                        known = moved.setdefault(id(tensor), OnDevice(tensor.detach()))
                        known._is_param = isinstance(tensor, nn.Parameter)  # pyright: ignore
                        named[name] = known  # pyright: ignore[reportArgumentType]
        return there

    def during(self, action: Callable[[], Any]) -> list[Event]:
        """Return what an action makes of both sides, in order."""
        self.events.clear()
        action()
        return [*self.events]

    def waits(self, action: Callable[[], Any]) -> list[Event]:
        """Return those events of an action for which the program waits."""
        return [event for event in self.during(action) if event.kind != "send"]


_ACTIVE: list[Pretended] = []


class OnDevice(torch.Tensor):
    """A tensor of the pretended device; its content lies on the CPU."""

    content: Tensor

    @staticmethod
    def __new__(cls, content: Tensor) -> "OnDevice":
        return torch.Tensor._make_wrapper_subclass(  # pyright: ignore
            cls,
            content.size(),
            strides=content.stride(),
            storage_offset=content.storage_offset(),
            dtype=content.dtype,
            device=DEVICE,
        )

    def __init__(self, content: Tensor) -> None:
        self.content = content

    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})

    def __repr__(self) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        return f"OnDevice({self.content!r})"


class _Operators(TorchDispatchMode):
    """Sees operators that have no tensor of the device among their arguments, too."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _compute(func, args, kwargs or {})


class _Factories(TorchFunctionMode):
    """Sees the few functions that do not pass the dispatcher."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        first = args[0] if args else None
        if func in (Tensor.tolist, Tensor.numpy, Tensor.__array__) and isinstance(first, OnDevice):
            _note("read", func.__name__)
            return func(first.content, *args[1:], **kwargs)
        there = kwargs.get("device")
        if func is Tensor.new_tensor and isinstance(first, OnDevice) and there is None:
            _note("copy", "new_tensor")
            return OnDevice(first.content.new_tensor(*args[1:], **kwargs))
        if func in (torch.tensor, torch.as_tensor) and there is not None and _is_there(there):
            _note("copy", func.__name__)
            return OnDevice(torch.tensor(*args, **(kwargs | {"device": None})))
        return func(*args, **kwargs)


def _compute(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Compute on the CPU, and let the result lie where a GPU would have it."""
    name = _name(func)
    ours: dict[int, OnDevice] = {}
    others: list[Tensor] = []
    plain_args = _contents(args, ours, others)
    plain_kwargs = {key: _contents(item, ours, others) for key, item in kwargs.items()}
    asked = kwargs.get("device")
    goes_there = bool(ours) if asked is None else _is_there(asked)
    if asked is not None and goes_there:
        plain_kwargs["device"] = torch.device("cpu")
    if name in ("aten::_to_copy", "aten::copy_"):
        goes_there = _note_copy(name, args, kwargs, goes_there)
    elif ours:
        _check_sides(name, others)
        counted = name == "aten::repeat_interleave" and kwargs.get("output_size") is None
        if name in HOST_NEEDS_VALUES or counted or _indexes_by_mask(name, args):
            _note("read", name)
    result = func(*plain_args, **plain_kwargs)
    if ours and isinstance(result, bool | int | float) and name not in CHOICES:
        _note("read", name)
    return _placed(result, ours) if goes_there else result


@cache
def _name(operator: Any) -> str:
    return operator._schema.name


def _contents(item: Any, ours: dict[int, OnDevice], others: list[Tensor]) -> Any:
    """Return arguments as the CPU takes them; collect tensors, those of the device by content."""
    if isinstance(item, OnDevice):
        ours[id(item.content)] = item
        return item.content
    if isinstance(item, Tensor):
        others.append(item)
    elif isinstance(item, list | tuple):
        return type(item)([_contents(part, ours, others) for part in item])
    return item


def _placed(item: Any, ours: dict[int, OnDevice]) -> Any:
    """Return results as the device has them; what was changed in place is the argument itself."""
    if isinstance(item, Tensor):
        return ours[id(item)] if id(item) in ours else OnDevice(item)
    if isinstance(item, list | tuple):
        return type(item)([_placed(part, ours) for part in item])
    return item


def _note_copy(name: str, args: Any, kwargs: dict[str, Any], goes_there: bool) -> bool:
    """Note what passes from one side to the other; return where the result lies."""
    if name == "aten::copy_":
        target, source = args[0], args[1]
        goes_there = isinstance(target, OnDevice)
        waits = not (kwargs.get("non_blocking") or (len(args) > 2 and args[2]))
    else:
        source, waits = args[0], not kwargs.get("non_blocking")
    comes_from_there = isinstance(source, OnDevice)
    if comes_from_there and not goes_there:
        _note("read", name)
    elif goes_there and not comes_from_there:
        _note("copy" if waits else "send", name)
    return goes_there


def _check_sides(name: str, others: list[Tensor]) -> None:
    """A GPU takes single numbers of the CPU as they are, and indices after a copy."""
    arrays = [tensor for tensor in others if tensor.ndim]
    if arrays and name not in INDEXING:
        raise RuntimeError(f"{name} got tensors of both devices, in {_place()}")
    for _ in arrays:
        _note("copy", name)


def _indexes_by_mask(name: str, args: Any) -> bool:
    if name not in INDEXING:
        return False
    return any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _is_there(device: Any) -> bool:
    return torch.device(device).type == DEVICE.type


def _note(kind: Kind, operator: str) -> None:
    for pretended in _ACTIVE:
        pretended.events.append(Event(kind, operator, _place()))


def _place() -> str:
    frame = sys._getframe()
    while frame is not None:
        path = frame.f_code.co_filename
        if "/src/ttt3r/" in path:
            return f"{path.partition('/src/ttt3r/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return "a test"
