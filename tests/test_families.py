"""One video through every family: the same commands, the same run folder, the same evaluation."""

from pathlib import Path

import pytest

from tests.cli.conftest import Ttt3r, make_clip, ttt3r  # noqa: F401 (a fixture)
from ttt3r.evaluation.results import read_evaluation
from ttt3r.runs.reader import Run

FAMILIES = {
    "cut3r": ("tiny-linear", "ttt3r"),
    "point3r": ("tiny-point3r", "fuse"),
    "streamvggt": ("tiny-streamvggt", "keep_all"),
    "vggt": ("tiny-vggt", "once"),
    "fast3r": ("tiny-fast3r", "once"),
}
OTHER_RULES = {
    "cut3r": "damped(ttt3r, 0.5)",
    "point3r": "append",
    "streamvggt": "window(3)",
    "vggt": "keep_all",
    "fast3r": "window(3)",
}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "walk.mp4", 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_and_its_continuation(family: str, ttt3r: Ttt3r, clip: Path):  # noqa: F811
    name, rule = FAMILIES[family]
    model = ("--model", name, "--device", "cpu")
    whole = ttt3r("run", clip, *model, "--reset", "never", "--out", "whole", "--quiet")
    assert whole.status == 0, whole.err
    run = Run.open("whole")
    assert len(run) == 5 and run.manifest["rule"] == rule
    for prediction in (run[0], run[4]):
        assert prediction.points is not None and prediction.points.shape[-1] == 3
        assert prediction.world_from_camera is not None and prediction.intrinsics is not None
        assert prediction.confidence is not None and prediction.points.isfinite().all()
    assert ttt3r("info", "whole").status == 0
    assert ttt3r("export", "whole", "--to", "tum", "--out", "walk.txt").status == 0
    assert len(Path("walk.txt").read_text().splitlines()) == 5


@pytest.mark.parametrize("family", FAMILIES)
def test_resumed_equals_uninterrupted(family: str, clip: Path, tmp_path: Path):
    import torch

    import ttt3r as package

    model = package.load(FAMILIES[family][0], device="cpu")
    whole = list(package.reconstruct(clip, model=model, out=tmp_path / "whole"))
    with package.reconstruct(
        clip, model=model, out=package.RunFolder(tmp_path / "part", checkpoint_every=1)
    ) as predictions:
        for _ in range(3):
            next(predictions)
    rest = list(
        package.reconstruct(
            clip, model=model, out=package.RunFolder(tmp_path / "part", resume=True)
        )
    )
    # What answers when the clip has ended looks again, and gives the same.
    start = 0 if FAMILIES[family][1] == "once" else 3
    assert [p.index for p in rest] == list(range(start, 5))
    for again, first in zip(rest, whole[start:], strict=True):
        assert torch.equal(again.points, first.points)
        assert torch.equal(again.world_from_camera, first.world_from_camera)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluation(family: str, ttt3r: Ttt3r):  # noqa: F811
    name, rule = FAMILIES[family]
    words = ("--task", "pose", "--protocol", "synthetic/stride10/5", "--sequences", "stream-0")
    model = ("--model", name, "--device", "cpu", "--out", "ev", "--quiet")
    result = ttt3r("eval", *words, *model, "--rule", rule, OTHER_RULES[family])
    assert result.status == 0, result.err
    labels = {read_evaluation(path).label for path in Path("ev").glob("*/summary.json")}
    assert len(labels) == 2 and OTHER_RULES[family] in labels


@pytest.mark.parametrize("family", FAMILIES)
def test_rules_of_other_families_are_refused(family: str, ttt3r: Ttt3r, clip: Path):  # noqa: F811
    name, _ = FAMILIES[family]
    other = "fuse" if family == "cut3r" else "ttt3r"
    result = ttt3r("run", clip, "--model", name, "--device", "cpu", "--rule", other, "--out", "r")
    assert result.status == 2 and other in result.err and not Path("r").exists()


def test_the_tables_are_those_of_the_networks():
    from examples.families import MARKS, PAGE, ROWS, table

    found = MARKS.search(PAGE.read_text("utf-8"))
    assert found and table().strip() in found[0], "run python -m examples.families"
    assert table().count("\n") == 2 + len(ROWS) == 7
