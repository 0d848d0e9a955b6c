"""Read and write registered frozen dataclasses as short text, such as ``damped(ttt3r, 0.5)``.

One notation serves the command line, run manifests and saved sessions. It is parsed, never
evaluated: a name, optionally followed by arguments that are numbers, strings, booleans, None or
further values of the same registry.
"""

import ast
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from ttt3r.errors import SettingError


def to_text(value: Any) -> str:
    """Write a registered value; fields that equal their default are left out.

    Every value of a registry is a frozen dataclass with a class attribute `name`.
    """
    arguments = []
    for field in fields(value):
        content = getattr(value, field.name)
        if field.default is not MISSING and content == field.default:
            continue
        text = to_text(content) if hasattr(type(content), "name") else repr(content)
        arguments.append(text if field.default is MISSING else f"{field.name}={text}")
    return f"{value.name}({', '.join(arguments)})" if arguments else value.name


def from_text(text: str, registry: Mapping[str, type], kind: str) -> Any:
    """Read what `to_text` wrote.

    Args:
        text: for example ``"ttt3r"`` or ``"damped(ttt3r, 0.5)"``.
        registry: name of each value's class to the class.
        kind: what the values are called in messages, for example "rule".

    Raises:
        SettingError: if the text does not parse or names nothing in the registry.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SettingError(f"cannot read the {kind} {text!r}; {_choices(registry)}") from None
    return _build(tree, registry, kind)


def _build(node: ast.expr, registry: Mapping[str, type], kind: str) -> Any:
    if isinstance(node, ast.Constant):
        raise SettingError(f"{node.value!r} is not a {kind}; {_choices(registry)}")
    if isinstance(node, ast.Name):
        node = ast.Call(func=node, args=[], keywords=[])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise SettingError(f"cannot read the {kind} {ast.unparse(node)!r}; {_choices(registry)}")
    name = node.func.id
    if name not in registry:
        raise SettingError(f"unknown {kind} {name!r}; {_choices(registry)}")

    def argument(child: ast.expr) -> Any:
        return child.value if isinstance(child, ast.Constant) else _build(child, registry, kind)

    known = {field.name: field for field in fields(registry[name])}
    pairs = list(zip(known, (argument(child) for child in node.args), strict=False))
    pairs += [(item.arg or "**", argument(item.value)) for item in node.keywords]
    given = {
        key: float(value) if type(value) is int and known[key].type is float else value
        for key, value in pairs
        if key in known
    }
    try:
        if len(given) != len(node.args) + len(node.keywords):
            raise TypeError("an argument is unknown or given twice")
        return registry[name](**given)
    except TypeError:
        wanted = ", ".join(known) or "no arguments"
        raise SettingError(f"wrong arguments for the {kind} {name!r}: it takes {wanted}") from None


def _choices(registry: Mapping[str, type]) -> str:
    return f"known names are: {', '.join(sorted(registry))}"
