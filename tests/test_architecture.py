"""The house rules that a machine can check: who imports whom, and how long things get."""

import ast
import graphlib
import sys
from collections.abc import Iterator

import pytest

from tests.trees import MODULES, PACKAGE, ROOMS, modules_of, name_of, room_of, tree_of

# Rooms or modules that anything may import.
EVERYONE = {"types", "errors", "values", "files", "tensor_files", "version", "masks", "spans"}
# What else each room may import; itself goes without saying. A dotted name opens one module only.
MAY_IMPORT: dict[str, set[str]] = {
    "types": set(),
    "errors": set(),
    "values": set(),
    "files": set(),
    "tensor_files": set(),
    "version": set(),
    "masks": set(),
    "spans": set(),
    "nn": set(),
    "checkpoints": set(),
    "geometry": set(),
    "rules": {"geometry"},
    "models": {"checkpoints", "nn", "rules", "geometry"},
    "weights": {"models", "checkpoints"},
    "sources": {"geometry"},
    "runs": {"geometry"},
    "trace": {"geometry"},
    "stream": {
        "runs",
        "models.base",
        "models.adapters",
        "weights",
        "rules",
        "sources",
        "geometry",
        "trace",
    },
    "alignment": {"geometry", "runs", "sources"},
    "comparison": {
        "evaluation",
        "stream",
        "sources",
        "models.base",
        "rules",
        "weights",
        "geometry",
        "summary",
    },
    "drawing": {"geometry"},
    "viewer": {"drawing", "geometry", "runs"},
    "summary": {"drawing", "geometry", "runs", "trace"},
    "exporters": {"drawing", "geometry", "runs", "sources", "viewer", "summary", "trace"},
    "evaluation": {"geometry", "stream", "runs", "sources", "scenes", "models.base"},
    "scenes": {"drawing", "geometry", "sources"},
    "training": {"models", "nn", "rules", "weights", "scenes", "geometry", "stream"},
    "cli": set(),  # anything, but inside functions; see below
}
# `nn` knows nothing of this project but its errors.
NARROWER = {
    "nn": {"errors"},
    "checkpoints": {"errors", "files", "tensor_files"},
    "errors": set(),
    "files": {"errors"},
    "tensor_files": {"files"},
    "spans": {"errors", "files"},
    "values": {"errors"},
}

BASE_DEPENDENCIES = {
    "torch",
    "numpy",
    "safetensors",
    "jaxtyping",
    "msgspec",
    "PIL",
    "av",
    "tyro",
    "rich",
}
# Imported in functions only, with an error that prints the pip line.
EXTRAS = {
    *("pillow_heif", "scipy", "matplotlib", "pycolmap", "trimesh", "skimage", "rerun", "numba"),
    "OpenEXR",
}
CLI_TOP_LEVEL = {"ttt3r.cli", "ttt3r.errors", "ttt3r.files", "ttt3r.version"}

MOST_LINES, LONGEST_FUNCTION = 400, 60  # of functions without their docstrings
FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__", "breakpoint"}
FORBIDDEN_ATTRIBUTES = {
    ("sys", "path"),
    ("pickle", "load"),
    ("pickle", "loads"),
    ("marshal", "loads"),
    ("os", "system"),
    ("torch", "load"),
}


TOP = ("__init__", "__main__", "cli")  # may import anything


def imports(tree: ast.AST) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
    """Every import with the full name of what is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node, f"{node.module}.{alias.name}") for alias in node.names)


def lazy_imports(tree: ast.AST) -> set[int]:
    """Identities of the import statements that do not run when the module is imported."""
    found = set()
    for node in ast.walk(tree):
        lazy = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        typing = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if lazy or typing:
            found |= {
                id(child)
                for child in ast.walk(node)
                if isinstance(child, ast.Import | ast.ImportFrom)
            }
    return found


def own_parts(target: str) -> list[str]:
    """["models", "base", …] of "ttt3r.models.base.…"; [] of what is not ours."""
    first, *rest = target.split(".")
    return rest if first == "ttt3r" else []


def allowed(room: str, parts: list[str]) -> bool:
    everyone = NARROWER.get(room, EVERYONE)
    open_rooms = MAY_IMPORT[room] | everyone | {room}
    return any(parts[: name.count(".") + 1] == name.split(".") for name in open_rooms)


@pytest.mark.parametrize("room", [room for room in ROOMS if room not in TOP])
def test_import_direction(room: str):
    assert room in MAY_IMPORT, f"say in MAY_IMPORT what the new room {room} may import"
    for path in modules_of(room):
        for node, target in imports(tree_of(path)):
            if target.split(".")[0] == "ttt3r":
                where = f"{name_of(path)}:{node.lineno} imports {target}"
                assert allowed(room, own_parts(target)), where


def test_no_circles():
    """No module imports itself over others, imports inside functions included."""
    names = {".".join(("ttt3r", *p.relative_to(PACKAGE).with_suffix("").parts)): p for p in MODULES}
    names = {name.removesuffix(".__init__"): path for name, path in names.items()}
    graph = {
        name: {
            module
            for _, target in imports(tree_of(path))
            for module in (target, target.rpartition(".")[0])
            if module in names and module not in ("ttt3r", name)
        }
        for name, path in names.items()
        if room_of(path) not in TOP
    }
    assert sum(map(len, graph.values())) > 300
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(" → ".join(reversed(error.args[1])))


# The package's own `__init__` imports its names when they are used.
@pytest.mark.parametrize("room", ROOMS)
def test_nothing_is_imported_by_name(room: str):
    """`importlib` would get round the test above."""
    for path in set(modules_of(room)) - {PACKAGE / "__init__.py"}:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
                pytest.fail(f"{name_of(path)}:{node.lineno} imports by name")


@pytest.mark.parametrize("room", ROOMS)
def test_imports_at_the_top_are_base_dependencies(room: str):
    known = {"ttt3r"} | BASE_DEPENDENCIES | set(sys.stdlib_module_names)
    for path in modules_of(room):
        lazy = lazy_imports(tree_of(path))
        for node, target in imports(tree_of(path)):
            where = f"{name_of(path)}:{node.lineno} imports {target}"
            assert not (isinstance(node, ast.ImportFrom) and node.level), f"{where} relatively"
            first = target.split(".")[0]
            assert first in known | (EXTRAS if id(node) in lazy else set()), where


def test_the_command_line_imports_nothing_heavy_at_the_top():
    for path in modules_of("cli"):
        lazy = lazy_imports(tree_of(path))
        for node, target in imports(tree_of(path)):
            first = target.split(".")[0]
            light = first in sys.stdlib_module_names or first == "tyro" or target == "ttt3r"
            light = light or any(target.startswith(name) for name in CLI_TOP_LEVEL)
            assert light or id(node) in lazy, (
                f"{name_of(path)}:{node.lineno} imports {target} before a command is chosen"
            )


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_dangerous(room: str):
    for path in modules_of(room):
        for node in ast.walk(tree_of(path)):
            where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called = node.func.id
                assert called not in FORBIDDEN_CALLS, f"{where} calls {called}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                used = (node.value.id, node.attr)
                assert used not in FORBIDDEN_ATTRIBUTES, f"{where} uses {'.'.join(used)}"
        for node, target in imports(tree_of(path)):
            used = tuple(target.rsplit(".", 1))
            where = f"{name_of(path)}:{node.lineno} imports {target}"
            assert used not in FORBIDDEN_ATTRIBUTES, where


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    return first.end_lineno - first.lineno + 1 if ast.get_docstring(node) is not None else 0


@pytest.mark.parametrize("room", ROOMS)
def test_size(room: str):
    for path in modules_of(room):
        lines = len(path.read_text("utf-8").splitlines())
        assert lines <= MOST_LINES, f"{name_of(path)} has {lines} lines; split it"
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1 - docstring_lines(node)
                assert length <= LONGEST_FUNCTION, (
                    f"{name_of(path)}:{node.lineno} {node.name} has {length} lines"
                )


def test_every_folder_is_a_package():
    for folder in {path.parent for path in MODULES}:
        assert (folder / "__init__.py").is_file(), folder
