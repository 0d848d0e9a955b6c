"""Read a pickle as data, without running it.

A pickle is a program: Python's own reader imports what it names and calls it. This reader
interprets the same instructions but imports nothing and calls nothing. A name becomes a `Symbol`,
what would be the result of a call becomes an `Instance`, and only plain containers and constants
become themselves. The names a pickle may mention are limited all the same, so that a file that was
made to do harm is refused and not merely disarmed.
"""

import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO

CONSTANTS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4"),
        *("FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING"),
        *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
    }
)
MAPPINGS = frozenset(f"collections.{name}" for name in ("OrderedDict", "defaultdict", "Counter"))
MOST_PARTS_OF_A_KEY = 1000


class PickleError(ValueError):
    """A pickle that is damaged, or that uses an instruction nobody needs for plain data."""


class RefusedGlobalError(PickleError):
    """A pickle that names something outside the allow-list.

    Attributes:
        name: the dotted name that was refused.
    """

    def __init__(self, name: str) -> None:
        super().__init__(f"it refers to {name!r}")
        self.name = name


@dataclass(frozen=True)
class Symbol:
    """A class or function that a pickle names; never imported."""

    name: str


@dataclass(eq=False)
class Instance:
    """What the pickle wanted made by calling `symbol` with `arguments`; nothing was called.

    Attributes:
        symbol: the class or function.
        arguments: positional arguments, as data.
        state: what the pickle set on the object afterwards, as data.
    """

    symbol: Symbol
    arguments: tuple[Any, ...]
    state: Any = None


@dataclass(frozen=True, eq=False)
class Persistent:
    """A reference to something stored outside the pickle, such as a tensor's storage."""

    identity: Any


def read_pickle(stream: bytes | BinaryIO, allowed: Callable[[str], bool]) -> Any:
    """Return the content of one pickle as plain containers, symbols and instances.

    Args:
        stream: the pickle; a file is left right behind it.
        allowed: whether a dotted name may be mentioned.

    Raises:
        RefusedGlobalError: if a name is not allowed.
        PickleError: if the pickle is damaged or uses an unsupported instruction.
    """
    machine = _Machine(allowed)
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.execute(opcode.name, argument)
        return machine.result()
    except PickleError:
        raise
    # Whatever a malformed program trips over while it is interpreted: an empty stack, a list as a
    # dictionary key, a string that is not UTF-8, a length beyond memory; or a stray backslash, of
    # which Python only warns, where warnings are errors.
    except (ValueError, TypeError, LookupError, OverflowError, MemoryError, Warning) as error:
        raise PickleError(f"its pickle is damaged ({str(error)[:200]})") from error


class _Machine:
    """A pickle's stack and memo."""

    def __init__(self, allowed: Callable[[str], bool]) -> None:
        self.allowed = allowed
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.below:
            raise PickleError("its pickle is damaged (objects left over)")
        return self.stack[0]

    def execute(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self.stack.append(argument)
        elif (make := _NEW.get(name)) is not None:
            self.stack.append(make())
        elif (method := _METHODS.get(name)) is not None:
            method(self, argument)
        elif name not in ("PROTO", "FRAME", "STOP"):
            raise PickleError(f"its pickle uses the instruction {name}, which data never needs")

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.below.pop()
        return items

    def mark(self, _: Any) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.pop_mark()

    def pop_to_mark(self, _: Any) -> None:
        self.pop_mark()

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    def short_tuple(self, length: int) -> None:
        if len(self.stack) < length:
            raise PickleError("its pickle is damaged (stack underflow)")
        self.stack[-length:] = [tuple(self.stack[-length:])]

    def add_pairs(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise PickleError("its pickle is damaged (items set on something that is not a dict)")
        _check_hashable(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def add_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif isinstance(target, set):
            _check_hashable(items)
            target.update(items)
        else:
            raise PickleError("its pickle is damaged (items added to something that is not a list)")

    def set_item(self, _: Any) -> None:
        items = self.stack[-2:]
        del self.stack[-2:]
        self.add_pairs(items)

    def symbol(self, name: str) -> Symbol:
        if not self.allowed(name):
            raise RefusedGlobalError(name)
        return Symbol(name)

    def stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("its pickle is damaged (a name that is not text)")
        self.stack.append(self.symbol(f"{module}.{name}"))

    def instance(self, symbol: Any, arguments: Any) -> None:
        """Stand in for a call."""
        if not isinstance(symbol, Symbol) or not isinstance(arguments, tuple):
            raise PickleError("its pickle is damaged (a call of something that is not a name)")
        if symbol.name not in MAPPINGS:
            self.stack.append(Instance(symbol, arguments))
            return
        # An argument that holds items: those of a Counter, or of an old OrderedDict as pairs.
        content = next((item for item in arguments if isinstance(item, dict | list)), {})
        pairs = content.items() if isinstance(content, dict) else content
        self.stack.append({})
        self.add_pairs([part for pair in pairs for part in pair])

    def reduce(self, _: Any) -> None:
        arguments, symbol = self.stack.pop(), self.stack.pop()
        self.instance(symbol, arguments)

    def new_object_with_keywords(self, _: Any) -> None:
        self.stack.pop()
        self.reduce(None)

    def object_after_mark(self, _: Any) -> None:
        symbol, *arguments = self.pop_mark()
        self.instance(symbol, tuple(arguments))

    def build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, Instance):
            target.state = state
        elif not isinstance(target, dict):  # attributes of an OrderedDict carry no tensors
            raise PickleError("its pickle is damaged (a state set on a plain value)")


def _check_hashable(items: list[Any]) -> None:
    """Refuse large nested keys: hashing recurses without a limit, so a file could crash Python."""
    for item in items:
        pending, parts = [item], 0
        while pending:
            part = pending.pop()
            if isinstance(part, tuple | frozenset):
                parts += 1 + len(part)
                pending.extend(part)
            if parts > MOST_PARTS_OF_A_KEY:
                raise PickleError("its pickle uses a large nested key, which no checkpoint needs")


def _dict_after_mark(machine: _Machine, _: Any) -> None:
    items = machine.pop_mark()
    machine.stack.append({})
    machine.add_pairs(items)


def _push_after_mark(machine: _Machine, make: Callable[[list[Any]], Any]) -> None:
    items = machine.pop_mark()
    machine.stack.append(make(items))


def _frozenset(items: list[Any]) -> frozenset[Any]:
    _check_hashable(items)
    return frozenset(items)


_NEW: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
}


_METHODS: dict[str, Callable[[_Machine, Any], None]] = {
    "MARK": _Machine.mark,
    "POP": _Machine.pop,
    "POP_MARK": _Machine.pop_to_mark,
    "DUP": lambda machine, _: machine.stack.append(machine.stack[-1]),
    "PUT": _Machine.put,
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": _Machine.memoize,
    "GET": _Machine.get,
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "TUPLE": lambda machine, _: _push_after_mark(machine, tuple),
    "TUPLE1": lambda machine, _: machine.short_tuple(1),
    "TUPLE2": lambda machine, _: machine.short_tuple(2),
    "TUPLE3": lambda machine, _: machine.short_tuple(3),
    "LIST": lambda machine, _: _push_after_mark(machine, list),
    "FROZENSET": lambda machine, _: _push_after_mark(machine, _frozenset),
    "DICT": _dict_after_mark,
    "APPEND": lambda machine, _: machine.add_items([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.add_items(machine.pop_mark()),
    "ADDITEMS": lambda machine, _: machine.add_items(machine.pop_mark()),
    "SETITEM": _Machine.set_item,
    "SETITEMS": lambda machine, _: machine.add_pairs(machine.pop_mark()),
    "GLOBAL": lambda machine, name: machine.stack.append(machine.symbol(name.replace(" ", ".", 1))),
    "STACK_GLOBAL": _Machine.stack_global,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "NEWOBJ_EX": _Machine.new_object_with_keywords,
    "INST": lambda machine, name: machine.instance(
        machine.symbol(name.replace(" ", ".", 1)), tuple(machine.pop_mark())
    ),
    "OBJ": _Machine.object_after_mark,
    "BUILD": _Machine.build,
    "PERSID": lambda machine, name: machine.stack.append(Persistent(name)),
    "BINPERSID": lambda machine, _: machine.stack.append(Persistent(machine.stack.pop())),
}
