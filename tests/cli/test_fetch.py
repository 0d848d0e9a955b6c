"""Fetching from the command line: what is asked, what is shown, and the list of weights."""

import io
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cli.conftest import Ttt3r
from tests.weights.conftest import TINY_LINEAR, save, tiny_tensors
from tests.weights.fetching.publisher import publish, published
from tests.weights.fetching.servers import Server, serving
from ttt3r.cli import fetch as command
from ttt3r.cli.progress import TransferLines
from ttt3r.weights.catalogue import WeightsSpec

NAME = "cut3r_224_linear_4"


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as running:
        yield running


@pytest.fixture
def spec(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsSpec:
    """Small weights that a server on this machine gives."""
    for name in ("http_proxy", "HTTP_PROXY", "HF_HOME", "HF_HUB_CACHE", "TORCH_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path / "weights"))
    content = save(tmp_path / "a.pth", tiny_tensors("tiny-linear"), TINY_LINEAR).read_bytes()
    server.files["/file"] = content
    return publish(monkeypatch, NAME, replace(published("a.pth", content), places=(server.url(),)))


def answer(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Sit at a terminal and type."""
    terminal = io.StringIO(text)
    terminal.isatty = lambda: True
    monkeypatch.setattr(sys, "stdin", terminal)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)


def test_fetch(spec: WeightsSpec, ttt3r: Ttt3r) -> None:
    result = ttt3r("fetch", NAME, "--accept-licence")
    assert result.status == 0, result.err
    folder = spec.folder
    assert result.out == f"{NAME} is ready: {folder}\nnext: ttt3r run VIDEO --model {NAME}\n"
    lines = result.err.splitlines()
    assert lines[0].startswith("note: The weights") and spec.licence_url in lines[0]
    assert lines[1].startswith("note: To be downloaded: ") and str(folder) in lines[1]
    shown = [line.partition(":")[0] for line in lines[2:]]
    assert shown == ["fetching a.pth", "converting"], "one line each, where there is no terminal"
    assert f"note: the weights {NAME} are on" in ttt3r("fetch", NAME).err


def test_without_a_terminal_nobody_is_asked(spec: WeightsSpec, server: Server, ttt3r: Ttt3r):
    result = ttt3r("fetch", NAME)
    assert result.status == 2 and "--accept-licence" in result.err and not server.requests
    assert "CC-BY-NC-SA-4.0, no commercial use" in result.errors[0]


@pytest.mark.parametrize("text", ["n\n", "\n", "", "maybe\n"])
def test_a_no_at_the_terminal(
    text: str, spec: WeightsSpec, server: Server, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch
):
    answer(monkeypatch, text)
    result = ttt3r("fetch", NAME)
    assert result.status == 2 and "was not accepted; nothing was fetched" in result.err
    assert "Accept the licence and go on? [y/N]" in result.err and not server.requests


def test_a_yes_at_the_terminal(spec: WeightsSpec, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    answer(monkeypatch, "Yes\n")
    result = ttt3r("fetch", NAME)
    assert result.status == 0, result.err
    question = result.err.index("[y/N]")
    assert result.err.index("fetching a.pth") > question and spec.licence_url in result.err


def test_ctrl_c_says_how_to_go_on(spec: WeightsSpec, ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("ttt3r.weights.fetching.fetch", interrupted)
    result = ttt3r("fetch", NAME)
    assert result == (130, f"stopped. To continue:\n  ttt3r fetch {NAME}\n", "")
    result = ttt3r("fetch", NAME, "--half", "--sha256", "any")
    assert result.out.endswith(f"ttt3r fetch {NAME} --half --sha256 any\n")


def test_unknown_names_and_what_needs_no_fetching(ttt3r: Ttt3r):
    result = ttt3r("fetch", "nonsense")
    assert result.status == 2 and "vggt-1b" in result.errors[0]
    assert "need no fetching" in ttt3r("fetch", "builtin").errors[0]


def test_run_fetches_first(spec: WeightsSpec, server: Server, clip: Path, ttt3r: Ttt3r):
    words = ("run", clip, "--model", NAME, "--out", "out", "--end", 0.2, "--device", "cpu")
    result = ttt3r(*words)
    assert result.status == 2 and f"ttt3r fetch {NAME}" in result.err
    result = ttt3r(*words, "--fetch")
    assert result.status == 2 and "--accept-licence" in result.err and not server.requests
    result = ttt3r(*words, "--fetch", "--accept-licence")
    assert result.status == 0, result.err
    assert "fetching a.pth" in result.err and Path("out/manifest.json").is_file()
    result = ttt3r(*words, "--fetch", "--overwrite")
    assert result.status == 0 and len(server.requests) == 1, result.err


def test_run_does_not_fetch_for_what_cannot_run(
    spec: WeightsSpec, server: Server, clip: Path, ttt3r: Ttt3r
):
    words = ("--model", NAME, "--fetch", "--accept-licence")
    assert ttt3r("run", "missing.mp4", *words).status == 2
    assert server.requests == []
    assert ttt3r("run", clip, "--fetch", "--model", "tiny-dpt", "--end", 0.2).status == 0


def test_a_run_that_is_stopped_while_it_fetches(spec: WeightsSpec, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        command.fetch_for(NAME, True, lambda: True)
    assert not (spec.folder / "model.safetensors").exists()


def rows(ttt3r: Ttt3r) -> dict[str, str]:
    result = ttt3r("models")
    assert (result.status, result.err) == (0, "") and "ttt3r fetch NAME" in result.out
    return {line.split()[0]: line for line in result.out.splitlines() if line}


def test_the_list_says_where_weights_are(spec: WeightsSpec, tmp_path: Path, ttt3r: Ttt3r) -> None:
    assert re.search(r" 2\.6 GB +no ", rows(ttt3r)["fast3r_vit_large_512"])
    assert re.search(r" unknown +no ", rows(ttt3r)["point3r_512"])
    assert "not needed (random)" in rows(ttt3r)["tiny-dpt"]
    assert "in this package" in rows(ttt3r)["builtin"]
    spec.originals.mkdir(parents=True)
    (spec.originals / "a.pth.part").write_bytes(b"x" * 2000)
    assert f"partly, 2.0 kB in {spec.folder}" in rows(ttt3r)[NAME]
    other = tmp_path / "cache" / "huggingface" / "hub" / "models--lch01--StreamVGGT"
    copy = other / "snapshots" / "1" / "checkpoints.pth"
    copy.parent.mkdir(parents=True)
    with copy.open("wb") as file:
        file.truncate(5026743569)  # a hole, which takes no space
    assert re.search(rf" 5\.0 GB +elsewhere, {copy} ", rows(ttt3r)["streamvggt"])
    assert ttt3r("fetch", NAME, "--accept-licence").status == 0
    assert str(spec.folder) in rows(ttt3r)[NAME]


def test_remove_and_verify(spec: WeightsSpec, ttt3r: Ttt3r) -> None:
    assert "nothing is on this machine" in ttt3r("models", "--remove", NAME).out
    assert ttt3r("models", "--verify") == (0, "", "")
    assert ttt3r("fetch", NAME, "--accept-licence").status == 0
    path = spec.folder / "model.safetensors"
    result = ttt3r("models", "--verify")
    assert (result.status, result.out) == (0, f"{NAME}: {path}: good\n")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    result = ttt3r("models", "--verify")
    assert result.status == 1 and "DAMAGED: SHA-256" in result.out and "--remove" in result.out
    result = ttt3r("models", "--remove", NAME)
    assert result.status == 0 and f"removed {path}" in result.out and "freed" in result.out
    assert not spec.folder.exists()
    assert ttt3r("models", "--remove", "builtin").status == 2


def test_lines_of_progress(capsys: pytest.CaptureFixture[str]) -> None:
    ticks = iter([0.0, 1.0, 3.0, 4.0, 6.0])
    lines = TransferLines(lambda: next(ticks))
    lines.update("fetching a", 1_000_000, 9_000_000)  # those were there before
    lines.update("fetching a", 9_000_000, 9_000_000)
    lines.update("converting", 0, None)
    lines.update("converting", 4_000, None)
    lines.finish()
    lines.finish()
    assert capsys.readouterr().err.splitlines() == [
        "fetching a: 9.0 MB, 2.0 s, 4.0 MB/s",
        "converting: 4.0 kB, 2.0 s, 2.0 kB/s",
    ]


def test_the_command_line_in_another_process(spec: WeightsSpec, tmp_path: Path) -> None:
    """A terminal is not there, and what is not published is not asked for."""
    done = subprocess.run(
        [sys.executable, "-m", "ttt3r", "fetch", "streamvggt"],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2 and done.stderr.startswith("error: The weights streamvggt are")
    assert "5.0 GB from https://huggingface.co/lch01/StreamVGGT/resolve/f9ba55" in done.stderr
    assert "Traceback" not in done.stderr
