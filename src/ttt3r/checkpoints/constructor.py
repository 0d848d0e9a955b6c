"""Read constructor calls that upstream checkpoints carry as text.

Upstream evaluates that text. Here it is parsed: class names, keyword arguments, and values that are
constants or tuples of them.
"""

import ast
import math
from typing import Any

from ttt3r.errors import WeightsError

LONGEST = 20_000
UNBOUNDED = (-math.inf, math.inf)


def parse_call(text: str) -> tuple[str, str, dict[str, Any]]:
    """Take a constructor call of the form ``Network(Config(name=value, ...))`` apart.

    Returns:
        Both names and the keyword arguments: constants, or tuples of them.

    Raises:
        WeightsError: if the text is anything else.
    """
    if len(text) > LONGEST or "\\" in text:
        raise unreadable(text, "too long, or with escapes in a string")
    try:
        # The brackets let line breaks stand anywhere between tokens.
        tree = ast.parse(f"({text.strip()}\n)", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise unreadable(text, "not an expression") from None
    match tree:
        case ast.Call(
            func=ast.Name(id=outer),
            args=[ast.Call(func=ast.Name(id=inner), args=[], keywords=keywords)],
            keywords=[],
        ):
            arguments: dict[str, Any] = {}
            for item in keywords:
                if item.arg is None or item.arg in arguments:
                    raise unreadable(text, "a repeated or starred argument")
                arguments[item.arg] = _value(item.value, text)
            return outer, inner, arguments
    raise unreadable(text, "not a call of the form Network(Config(...)) with keywords")


def _value(node: ast.expr, text: str) -> Any:
    match node:
        case ast.Constant(value=str() | bool() | int() | float() | None):
            return node.value
        case ast.Name(id="inf"):
            return math.inf
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=ast.Constant() | ast.Name()):
            number = _value(node.operand, text)
            if isinstance(number, int | float) and not isinstance(number, bool):
                return -number if isinstance(node.op, ast.USub) else number
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            if all(not isinstance(element, ast.Tuple | ast.List) for element in elements):
                return tuple(_value(element, text) for element in elements)
    raise unreadable(text, "a value that is not a constant")


def unreadable(text: str, reason: str) -> WeightsError:
    """The error for a call that cannot be read."""
    shown = text if len(text) <= 200 else f"{text[:200]}…"
    return WeightsError(
        f"the constructor call in this checkpoint cannot be read ({reason}): {shown!r}. "
        "Get the checkpoint again from its publisher."
    )


def positive(name: str, value: Any) -> int:
    """Read an argument that must be a positive integer.

    Raises:
        WeightsError: if it is not.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if type(value) is not int or value < 1:
        raise unsupported(name, value, "a positive integer")
    return value


def largest_side(value: Any) -> int:
    """Read ``img_size``, one side or several.

    Raises:
        WeightsError: if one is not a positive integer.
    """
    sides = value if isinstance(value, tuple) and value else (value,)
    return max(positive("img_size", side) for side in sides)


def rope_base(value: Any) -> float:
    """Read ``pos_embed``, such as "RoPE100".

    Raises:
        WeightsError: if it is of another form.
    """
    digits = value.removeprefix("RoPE") if isinstance(value, str) else ""
    if value != f"RoPE{digits}" or not digits.isdecimal() or len(digits) > 9 or not int(digits):
        raise unsupported("pos_embed", value, "'RoPE' and a number, as in 'RoPE100'")
    return float(digits)


def unsupported(name: str, value: Any, wanted: str) -> WeightsError:
    """The error for an argument whose value would change the arithmetic."""
    return WeightsError(
        f"the checkpoint's constructor says {name}={value!r}, which is not supported; "
        f"it must be {wanted}"
    )
