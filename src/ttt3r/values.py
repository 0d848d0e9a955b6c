"""Registered frozen dataclasses, and their short text such as ``damped(ttt3r, 0.5)``.

One notation serves the command line, run manifests and saved sessions. It is parsed, never
evaluated: a name, optionally followed by arguments that are numbers, strings, booleans, None or
further values of the same registry.
"""

import ast
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from importlib.metadata import entry_points
from types import UnionType
from typing import Any, ClassVar, Literal, Union, get_args, get_origin, get_type_hints

from ttt3r.errors import SettingError


class Value:
    """Base of frozen dataclasses that have a name and check the types of their fields.

    A subclass with a `__post_init__` of its own calls this one first.

    Raises:
        SettingError: if a field has another type than its annotation, or is not finite.
    """

    name: ClassVar[str]

    def __post_init__(self) -> None:
        check_fields(self)


class Registry:
    """The values of one kind, by name.

    Args:
        kind: what they are called in messages, for example "rule".
        classes: frozen dataclasses with a class attribute `name`.
        default: what None stands for; without one, None is refused.
        group: entry points under which installed packages offer further classes by name.
    """

    def __init__(
        self, kind: str, classes: Iterable[type], default: Any = None, group: str | None = None
    ) -> None:
        self.kind, self.default, self.group = kind, default, group
        self.classes: dict[str, Any] = {}
        for cls in classes:
            self.add(cls)

    @property
    def names(self) -> list[str]:
        """Names of the registered classes."""
        return list(self.classes)

    def add(self, cls: type) -> None:
        """Register a class under its `name`."""
        self.classes[cls.name] = cls  # pyright: ignore[reportAttributeAccessIssue]

    def parse(self, value: Any = None) -> Any:
        """Return a value from its text, as it is, or the default if None.

        Raises:
            SettingError: if a text does not parse or names nothing here, if the value is of no
                registered class, or if one of its fields has the wrong type.
        """
        if value is None and self.default is not None:
            return self.default
        if isinstance(value, str):
            return from_text(value, self.classes, self.kind, self._find_plugin)
        if value is None or type(value) not in self.classes.values():
            raise SettingError(f"{value!r} is not a {self.kind}; {_choices(self.classes)}")
        check_fields(value)
        for field in fields(value):
            content = getattr(value, field.name)
            if is_dataclass(content) and not isinstance(content, type):
                self.parse(content)
        return value

    def _find_plugin(self, name: str) -> bool:
        """Register the class that an installed package offers under a name, if one does.

        Raises:
            SettingError: if it cannot be loaded, or is called otherwise.
        """
        if self.group is None:
            return False
        for found in entry_points(group=self.group, name=name):
            try:
                cls = found.load()
            except Exception as error:
                raise SettingError(
                    f"the {self.kind} {name!r} of {found.value} cannot be loaded: {error}"
                ) from error
            if getattr(cls, "name", None) != name:
                raise SettingError(f"{found.value} is not a {self.kind} called {name!r}")
            self.add(cls)
            return True
        return False


def check_fields(value: Any) -> None:
    """Check a frozen dataclass's fields against their annotations; integers become floats there.

    Raises:
        SettingError: if a field has another type, or is not finite.
    """
    hints = get_type_hints(type(value))
    for field in fields(value):
        content, hint = getattr(value, field.name), hints[field.name]
        if not _fits(content, hint):
            wanted = getattr(hint, "__name__", str(hint))
            wanted = f"a finite {wanted}" if hint is float else f"of type {wanted}"
            owner = f" of {value.name}" if hasattr(value, "name") else ""
            raise SettingError(f"{field.name}{owner} must be {wanted}, not {content!r}")
        if hint is float:
            object.__setattr__(value, field.name, float(content))


def _fits(content: Any, hint: Any) -> bool:
    origin = get_origin(hint)
    if hint is Any:
        return True
    if origin in (Union, UnionType):
        return any(_fits(content, option) for option in get_args(hint))
    if origin is Literal:
        return any(content == option and type(content) is type(option) for option in get_args(hint))
    if hint is int:
        return type(content) is int
    if hint is float:
        try:
            is_number = isinstance(content, int | float) and not isinstance(content, bool)
            return is_number and math.isfinite(content)
        except OverflowError:
            return False
    return isinstance(content, origin or hint)


def to_text(value: Any) -> str:
    """Write a registered value; fields that equal their default are left out."""
    arguments = []
    for field in fields(value):
        content = getattr(value, field.name)
        if field.default is not MISSING and content == field.default:
            continue
        text = to_text(content) if is_dataclass(content) else repr(content)
        arguments.append(text if field.default is MISSING else f"{field.name}={text}")
    return f"{value.name}({', '.join(arguments)})" if arguments else value.name


def from_text(
    text: str,
    classes: Mapping[str, Any],
    kind: str,
    find: Callable[[str], bool] = lambda name: False,
) -> Any:
    """Read what `to_text` wrote; see `Registry.parse`.

    Args:
        text: a value.
        classes: by their names.
        kind: what they are called in messages.
        find: tries to add a class of an unknown name to `classes`, and says whether it did.

    Raises:
        SettingError: if the text does not parse, or names nothing in `classes`.
    """
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise SettingError(f"cannot read the {kind} {text!r}; {_choices(classes)}") from None
    return _build(tree, classes, kind, find)


def _build(
    node: ast.expr, classes: Mapping[str, Any], kind: str, find: Callable[[str], bool]
) -> Any:
    if isinstance(node, ast.Name):
        node = ast.Call(func=node, args=[], keywords=[])
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise SettingError(f"cannot read the {kind} {ast.unparse(node)!r}; {_choices(classes)}")
    name = node.func.id
    if name not in classes and not find(name):
        raise SettingError(f"unknown {kind} {name!r}; {_choices(classes)}")

    def argument(child: ast.expr) -> Any:
        try:
            return ast.literal_eval(child)
        except (ValueError, TypeError):
            return _build(child, classes, kind, find)

    known = [field.name for field in fields(classes[name])]
    pairs = list(zip(known, (argument(child) for child in node.args), strict=False))
    pairs += [(item.arg or "**", argument(item.value)) for item in node.keywords]
    hints = get_type_hints(classes[name])
    try:
        given = {
            key: float(value) if type(value) is int and hints[key] is float else value
            for key, value in pairs
            if key in known
        }
        if len(given) != len(node.args) + len(node.keywords):
            raise TypeError("an argument is unknown or given twice")
        value = classes[name](**given)
    except (TypeError, OverflowError):
        wanted = ", ".join(known) or "no arguments"
        raise SettingError(f"wrong arguments for the {kind} {name!r}: it takes {wanted}") from None
    check_fields(value)
    return value


def _choices(classes: Mapping[str, Any]) -> str:
    return f"known names are: {', '.join(sorted(classes))}"
