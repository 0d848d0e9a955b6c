"""The part of YAML that calibration files use: nested mappings, lists and scalars.

Anchors, block texts and other tags than OpenCV's, which are skipped, are not read.
"""

import re
from typing import Any

_TOKEN = re.compile(r"\s*(?:([\[\]{},])|\"([^\"]*)\"|'([^']*)'|([^\[\]{},\"']+))")
_COMMENT = re.compile(r"(^|\s)#.*$")
_KEY = re.compile(
    r"(\"[^\"]*\"|'[^']*'|[^\s\[\]{}\"':][^\[\]{}\"':]*?)\s*:(?:\s+(.*))?$", re.DOTALL
)
_TAG = re.compile(r"^!+\S+\s*")

Line = tuple[int, str]  # indentation, content


def read_yaml(text: str) -> Any:
    """Read a document; numbers become floats, other scalars texts.

    Raises:
        ValueError: if it is damaged, or uses what is not read.
    """
    lines = _lines(text)
    if not lines:
        return {}
    value, rest = _block(lines, 0, lines[0][0])
    if rest != len(lines):
        raise ValueError(f"the line {lines[rest][1]!r} is indented otherwise than those before it")
    return value


def _lines(text: str) -> list[Line]:
    """Lines with content; what stands in brackets is joined."""
    found: list[Line] = []
    depth = 0
    for raw in text.splitlines():
        line = _COMMENT.sub("", raw.replace("\t", "    ")).rstrip()
        content = line.lstrip()
        if depth == 0 and (not content or content.startswith("%") or content in ("---", "...")):
            continue
        if depth:
            found[-1] = found[-1][0], f"{found[-1][1]} {content}"
        else:
            found.append((len(line) - len(content), content))
        depth += sum(content.count(c) for c in "[{") - sum(content.count(c) for c in "]}")
    if depth:
        raise ValueError("a bracket is not closed")
    return found


def _block(lines: list[Line], at: int, indent: int) -> tuple[Any, int]:
    """The mapping or the list that begins at a line, and the number of the line after it."""
    if lines[at][1].startswith("- ") or lines[at][1] == "-":
        return _items(lines, at, indent)
    mapping: dict[str, Any] = {}
    while at < len(lines) and lines[at][0] == indent:
        match = _KEY.match(lines[at][1])
        if match is None:
            raise ValueError(f"the line {lines[at][1]!r} has no name before a colon")
        name, rest = match[1].strip("\"'"), _TAG.sub("", match[2] or "").strip()
        at += 1
        if rest:
            mapping[name] = _flow(rest)
            continue
        mapping[name] = None
        if at < len(lines):
            deeper = lines[at][0] > indent
            if deeper or (lines[at][0] == indent and lines[at][1].startswith("- ")):
                mapping[name], at = _block(lines, at, lines[at][0])
    return mapping, at


def _items(lines: list[Line], at: int, indent: int) -> tuple[list[Any], int]:
    items: list[Any] = []
    while at < len(lines) and lines[at][0] == indent and lines[at][1].startswith("-"):
        content = lines[at][1][1:].strip()
        items.append(_flow(content) if content else None)
        at += 1
    return items, at


def _flow(text: str) -> Any:
    """A list or mapping in brackets, or a scalar."""
    if text[0] not in "[{":
        return _scalar(text.strip("\"'"))
    tokens = [match for match in _TOKEN.finditer(text) if match[0].strip()]
    value, rest = _value(tokens, 0)
    if rest != len(tokens):
        raise ValueError(f"{text!r} goes on after its last bracket")
    return value


def _value(tokens: list[re.Match[str]], at: int) -> tuple[Any, int]:
    if at >= len(tokens):
        raise ValueError("a list ends early")
    token = tokens[at]
    if token[1] not in ("[", "{"):
        if token[1]:
            raise ValueError(f"{token[1]!r} stands where a value belongs")
        return _scalar(next(part for part in token.groups()[1:] if part is not None)), at + 1
    close, items = "]" if token[1] == "[" else "}", []
    at += 1
    while at < len(tokens) and tokens[at][1] != close:
        if tokens[at][1] == ",":
            at += 1
            continue
        item, at = _value(tokens, at)
        items.append(item)
    if at >= len(tokens):
        raise ValueError("a bracket is not closed")
    if close == "]":
        return items, at + 1
    pairs = [str(item).partition(":") for item in items]
    return {name.strip(): _scalar(rest) for name, _, rest in pairs}, at + 1


def _scalar(text: str) -> Any:
    text = text.strip()
    try:
        return float(text)
    except ValueError:
        return text
