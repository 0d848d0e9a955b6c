"""What README and docs tell the reader to type works: every command, every block of Python."""

import importlib.util
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.alignment.photographs import photograph
from tests.pages import ROOT, Block, blocks, pages
from tests.sources.clips import write_clip
from tests.weights.conftest import tiny_dpt_pth  # noqa: F401 (a fixture)
from tests.weights.fetching.conftest import server, weights  # noqa: F401 (fixtures)
from tests.weights.fetching.publisher import publish, published
from tests.weights.fetching.servers import Server
from ttt3r.cli import main
from ttt3r.scenes import make_clip

RELEASED = "cut3r_512_dpt_4_64"
# Commands that cannot run here, by how they begin, and why. Modules that they name are looked for.
ELSEWHERE = {
    "pip install": "fetches packages; .ci/wheel installs the package",
    "ssh -L": "needs another machine",
    "ns-train": "trains a splat on a GPU, with another program",
    "docker": "needs a container engine",
    "python -m ttt3r.training": "takes hours; tests/training does the same in little",
    "python -m benchmarks.": "takes hours; tests/benchmarks does the same in little",
    ".venv/bin/python -m pytest": "needs a GPU, or is these tests",
}
# Pages whose Python is run by another test.
OTHERS = {
    "docs/tutorial.md": "tests/test_tutorial.py runs the notebook that it is made from",
    "docs/adding-a-rule.md": "tests/test_readme.py gives the class its imports and runs it",
}
# Pages whose blocks take more than five seconds.
LONG = [f"docs/{name}.md" for name in ("diagnostics", "evaluation", "families", "getting-started")]
LONG += ["docs/long-runs.md"]
PAGES = {str(page.relative_to(ROOT)): page for page in pages()}


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clip that pages talk of, and a run of it."""
    folder = tmp_path_factory.mktemp("pages")
    write_clip(folder / "walk.mp4", list(make_clip(1, 6, (120, 160)).image.numpy()))
    assert main(["run", str(folder / "walk.mp4"), "--out", str(folder / "run"), "--quiet"]) == 0
    write_positions(folder)
    return folder


def write_positions(folder: Path) -> None:
    """A drone's photographs, and where the camera of the clip might have been."""
    (folder / "drone").mkdir()
    images = make_clip(2, 6, (120, 160), stride=8).image.numpy()
    rows = []
    for number, image in enumerate(images):
        metres = 2.0 * number, 0.5 * number**2, 0.2 * (number % 2)
        fix = 47 + metres[1] / 111177, 8 + metres[0] / 76056, 400 + metres[2]
        photograph(folder / "drone" / f"shot{number}.jpg", fix, image)
        rows.append((number / 10, *fix, *metres))
    gps = [f"{t},{lat:.9f},{lon:.9f},{alt}\n" for t, lat, lon, alt, *_ in rows]
    (folder / "gps.csv").write_text("".join(["time,lat,lon,alt\n", *gps]))
    tum = [f"{t} {x} {y} {z} 0 0 0 1\n" for t, *_, x, y, z in rows]
    (folder / "poses.tum").write_text("".join(tum))


def ctrl_c(seconds: float) -> None:
    """Stands for a user who has seen enough."""
    raise KeyboardInterrupt


@pytest.fixture
def workplace(
    kept: Path,
    tiny_dpt_pth: Path,  # noqa: F811
    server: Server,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A folder with the clip, published weights in it and on a server, and a user who says yes."""
    content = tiny_dpt_pth.read_bytes()
    server.files["/file"] = content
    publish(
        monkeypatch,
        RELEASED,
        replace(published(f"{RELEASED}.pth", content), places=(server.url(),)),
    )
    monkeypatch.setattr("ttt3r.cli.fetch.asking", lambda: lambda text: True)
    monkeypatch.setattr("ttt3r.cli.viewing.pause", ctrl_c)
    folder = tmp_path / "workplace"
    folder.mkdir()
    for name in ("walk.mp4", "drone", "gps.csv", "poses.tum"):
        (folder / name).symlink_to(kept / name)
    (folder / f"{RELEASED}.pth").write_bytes(content)
    builtin = ROOT / "src/ttt3r/weights/data/builtin.safetensors"
    (folder / "nano.safetensors").symlink_to(builtin)  # stands for what was trained
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (name in LONG)) for name in PAGES]
)
def test_blocks_run(name: str, workplace: Path, kept: Path, capsys: pytest.CaptureFixture[str]):
    """Blocks of a page run from the top to the bottom, in one folder and one namespace."""
    found = blocks(PAGES[name])
    if not any("--out run " in block.text for block in found):
        shutil.copytree(kept / "run", workplace / "run")
    names: dict[str, object] = {}
    for block in found:
        if block.language == "python" and name not in OTHERS:
            exec(compile(block.text, name, "exec"), names)
        for command in block.commands() if block.language == "sh" else ():
            type_in(command, capsys)


def type_in(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Run a command, or check what can be checked of it."""
    words = shlex.split(command, comments=True)
    data = re.search(r"--data ([A-Z0-9]+)\b", command)
    if words[0] == "make":
        subprocess.run([*words, "--dry-run"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    elif data:  # a data set that is not here; all options are read before
        capsys.readouterr()
        assert main(["tiny-linear" if word == "WEIGHTS" else word for word in words[1:]]) == 2
        assert f"{data[1]} does not exist" in capsys.readouterr().err
    elif words[0] == "ttt3r":
        assert main(words[1:]) == 0, command
    else:
        assert any(command.startswith(begin) for begin in ELSEWHERE), command
        module = re.search(r"-m (\S+)", command)
        assert not module or importlib.util.find_spec(module[1]), command


def test_no_command_hides_in_other_blocks() -> None:
    begins = re.compile(r"^\s*(\$ )?(ttt3r [a-z]|pip |python |make |docker |\.venv/)", re.MULTILINE)
    for name, page in PAGES.items():
        for block in blocks(page):
            assert block.language in ("sh", "python", "text"), (name, block.text[:80])
            assert block.language != "text" or not begins.search(block.text), name
        assert not re.search(
            r"^```\{|^~~~|^( {4}|\t)(ttt3r|pip|python) ", page.read_text("utf-8"), re.M
        )


@pytest.mark.parametrize("begin", ELSEWHERE)
def test_each_exception_is_needed(begin: str) -> None:
    shells = [b for page in PAGES.values() for b in blocks(page) if b.language == "sh"]
    commands = [command for block in shells for command in block.commands()]
    assert any(command.startswith(begin) for command in commands)


def test_lines_are_joined() -> None:
    assert Block("sh", "# no\na \\\n  --b  # yes\n\nc\n").commands() == ["a    --b  # yes", "c"]
