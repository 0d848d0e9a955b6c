"""What is known to break on Windows and macOS stays out; no such machine runs these tests."""

import ast
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from tests.trees import ROOMS, modules_of, name_of, tree_of
from ttt3r import files
from ttt3r.cli import progress
from ttt3r.evaluation import machine

UNIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "termios", "tty"}
# Missing on Windows, or allowed there to some users or on some disks only.
UNIX_NAMES = {
    "os": {
        *("fchmod", "fork", "geteuid", "getuid", "killpg", "link", "mkfifo", "posix_fadvise"),
        *("pread", "sched_getaffinity", "setsid", "statvfs", "symlink", "sysconf", "O_NOFOLLOW"),
    },
    "signal": {"alarm", "SIGALRM", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGUSR1", "SIGUSR2"},
}
UNIX_METHODS = {"hardlink_to", "symlink_to"}  # of paths


def guarded(tree: ast.AST) -> set[ast.AST]:
    """What stands in a `try` that expects a module or a name to be missing."""
    missing = ("ImportError", "AttributeError", "NotImplementedError")
    return {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.Try)
        and any(name in ast.unparse(handler) for handler in node.handlers for name in missing)
        for child in ast.walk(node)
    }


@pytest.mark.parametrize("room", ROOMS)
def test_nothing_of_one_system_goes_unguarded(room: str) -> None:
    for path in modules_of(room):
        tree = tree_of(path)
        for node in set(ast.walk(tree)) - guarded(tree):
            where = f"{name_of(path)}:{getattr(node, 'lineno', 0)}"
            match node:
                case ast.Import(names=names):
                    assert not UNIX_MODULES & {alias.name for alias in names}, where
                case ast.ImportFrom(module=module):
                    assert module not in UNIX_MODULES, where
                case ast.Attribute(value=ast.Name(id=owner), attr=name):
                    assert name not in UNIX_NAMES.get(owner, ()), where
                case ast.Attribute(attr=name):
                    assert name not in UNIX_METHODS, where


@pytest.mark.parametrize("room", ROOMS)
def test_texts_have_the_same_bytes_everywhere(room: str) -> None:
    """Else Windows writes cp1252 and its own line ends, and a run cannot move between systems."""
    calls = (
        (path, node, node.func.attr)
        for path in modules_of(room)
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    )
    for path, node, called in calls:
        where = f"{name_of(path)}:{node.lineno}"
        keywords = {keyword.arg for keyword in node.keywords}
        match called:
            case "read_text":
                assert node.args or "encoding" in keywords, where
            case "write_text" if len(node.args) < 2:
                assert "encoding" in keywords, where
            case "open" if "encoding" in keywords:
                mode = ast.literal_eval(node.args[0]) if node.args else "r"
                assert "r" in mode or "newline" in keywords, where


def test_a_system_without_locks_is_told_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(files, "fcntl", None)
    with caplog.at_level(logging.WARNING), files.lock(tmp_path / "lock") or pytest.fail("no file"):
        assert "cannot be locked (not supported on this system)" in caplog.text


def test_texts_are_utf8_with_line_feeds(tmp_path: Path) -> None:
    files.write_text(tmp_path / "a", "β\nλ\n")
    assert (tmp_path / "a").read_bytes() == b"\xce\xb2\n\xce\xbb\n"


def test_memory_is_unknown_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    monkeypatch.setattr(Path, "read_text", _no_such_file)
    assert progress.resident_bytes() is None and progress.memory_text() == ""
    assert machine.peak_memory() is None
    assert machine.cpu_name()


def _no_such_file(*_: object) -> str:
    raise FileNotFoundError


SIMULATED = """
import os, signal, sys
import av, numpy, PIL.Image, rich.progress, safetensors.torch, torch, tyro, tempfile, subprocess
import torch._dynamo, torch.nn.attention  # what others import late may need what is hidden below
for name in {modules!r}:
    sys.modules[name] = None
for module, names in ((os, {os!r}), (signal, {signal!r})):
    for name in names:
        vars(module).pop(name, None)
real = os.fsync
def fsync(handle):
    if os.path.isdir(f"/proc/self/fd/{{handle}}"):
        return
    os.lseek(handle, 0, os.SEEK_END)
    assert os.write(handle, b"") == 0, "synced but not open for writing"
    real(handle)
os.fsync = fsync
from ttt3r.cli import main
for line in (
    "scene --frames 3 --size 64x48 --out a.mp4 --truth a --quiet",
    "run a.mp4 --out run --quiet",
    "run a.mp4 --out run --resume --quiet",
    "info run",
    "export run --to tum --out a.tum",
):
    assert main(line.split()) == 0, line
"""


@pytest.mark.slow
def test_commands_run_where_unix_is_missing(tmp_path: Path) -> None:
    code = SIMULATED.format(
        modules=sorted(UNIX_MODULES - {"posix"}),
        os=sorted(UNIX_NAMES["os"]),
        signal=sorted(UNIX_NAMES["signal"]),
    )
    command = [sys.executable, "-c", code]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
