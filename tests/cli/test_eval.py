"""`ttt3r eval`: what is written, how it goes on, what is refused."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Ttt3r
from tests.processes import started, wait_until
from ttt3r.cli.evaluate import EvalCommand, parse_lengths
from ttt3r.cli.run import RunCommand
from ttt3r.errors import SettingError
from ttt3r.evaluation.results import read_evaluation

MODEL = ("--model", "tiny-linear", "--device", "cpu")
TASK = ("--task", "pose", "--protocol", "synthetic/stride10/8")
SMALL = (*TASK, *MODEL, "--frames", "4,8", "--sequences", "stream-0", "stream-1")


def numbers(path: Path) -> list:
    """What must be the same in two runs."""
    return [
        (s.sequence, [(x.length, x.status, dict(x.metrics)) for x in s.scores])
        for s in read_evaluation(path).sequences
    ]


def test_numbers_tables_and_figures(ttt3r: Ttt3r):
    result = ttt3r("eval", *SMALL, "--rule", "ttt3r", "overwrite", "--out", "ev")
    assert result.status == 0, result.err
    assert "report: ev/summary.md" in result.out and "ATE" in result.out
    assert (
        "next: ttt3r eval --compare ev/ttt3r/summary.json"
        in result.out.replace("ev/overwrite/summary.json ev/ttt3r", "ev/ttt3r")
        or "--compare ev/overwrite/summary.json ev/ttt3r/summary.json" in result.out
    )
    found = sorted(str(p.relative_to("ev")) for p in Path("ev").rglob("*") if p.is_file())
    assert found == sorted(
        [
            ".lock",
            "evaluation.json",
            "summary.md",
            "summary.tex",
            "plots/lengths.png",
            "plots/stream-0.png",
            "plots/stream-1.png",
            *(
                f"{rule}/{name}"
                for rule in ("ttt3r", "overwrite")
                for name in (
                    "summary.json",
                    *(
                        f"sequences/stream-{i}/{file}"
                        for i in (0, 1)
                        for file in ("scores.json", "estimate.txt", "truth.txt")
                    ),
                )
            ),
        ]
    )
    report = Path("ev/summary.md").read_text("utf-8")
    for text in ("synthetic/stride10/8", "subset", "plots/lengths.png", "overwrite", "stream-1"):
        assert text in report
    for line in Path("ev/summary.md").read_text("utf-8").splitlines():
        if "](" in line and "plots/" in line:
            assert (Path("ev") / line.split("](")[1].split(")")[0]).exists()
    assert "\\toprule" in Path("ev/summary.tex").read_text("utf-8")
    compared = ttt3r("eval", "--compare", "ev/ttt3r/summary.json", "ev/overwrite/summary.json")
    assert compared.status == 0 and "ATE" in compared.out


@pytest.mark.parametrize("task", ["depth", "recon"])
def test_the_other_tasks(ttt3r: Ttt3r, task: str):
    protocol = "synthetic/stride10/3" if task == "depth" else "synthetic/step10/3"
    words = ("--task", task, "--protocol", protocol, "--sequences", "stream-0", "--quiet")
    result = ttt3r("eval", *words, *MODEL, "--out", "ev")
    assert (result.status, result.out, result.err.strip()) == (0, "", result.err.strip())
    assert Path("ev/plots/stream-0.png").exists() and Path("ev/summary.md").exists()


@pytest.mark.slow
def test_killed_half_way_it_goes_on_to_the_same_numbers(ttt3r: Ttt3r, tmp_path: Path):
    assert ttt3r("eval", *SMALL, "--out", "whole").status == 0
    done = Path("part/ttt3r/sequences/stream-0/scores.json")
    words = [sys.executable, "-m", "ttt3r", "eval", *map(str, SMALL), "--out", "part"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with started(words, cwd=tmp_path, stderr=subprocess.DEVNULL, env=environment) as process:
        wait_until(done.exists, process)
        process.send_signal(signal.SIGKILL)
    before = done.stat().st_mtime_ns
    refused = ttt3r("eval", *SMALL, "--out", "part")
    assert refused.status == 2 and "--resume to continue it" in refused.err
    result = ttt3r("eval", *SMALL, "--out", "part", "--resume")
    assert result.status == 0, result.err
    assert done.stat().st_mtime_ns == before  # not done twice
    assert numbers(Path("part/ttt3r/summary.json")) == numbers(Path("whole/ttt3r/summary.json"))


def test_ctrl_c_says_how_to_go_on(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    from ttt3r.stream.session import Session

    push = Session.push

    def interrupted(self, *words, **options):
        if self.index == 5:
            os.kill(os.getpid(), signal.SIGINT)
        return push(self, *words, **options)

    monkeypatch.setattr(Session, "push", interrupted)
    result = ttt3r("eval", *SMALL, "--out", "ev")
    assert result.status == 130 and "--resume --out ev" in result.out
    monkeypatch.setattr(Session, "push", push)
    assert ttt3r("eval", *SMALL, "--out", "ev", "--resume").status == 0


def test_settings_that_changed_are_refused(ttt3r: Ttt3r):
    assert ttt3r("eval", *SMALL, "--out", "ev").status == 0
    other = [word if word != "4,8" else "4" for word in SMALL]
    refused = ttt3r("eval", *other, "--out", "ev", "--resume")
    assert refused.status == 2 and "lengths: was [4, 8], now [4]" in refused.err
    assert ttt3r("eval", *other, "--out", "ev", "--overwrite").status == 0
    assert read_evaluation(Path("ev/ttt3r/summary.json")).settings.lengths == (4,)


def test_a_damaged_image_costs_its_sequence_only(ttt3r: Ttt3r, tmp_path: Path):
    for name in ("a", "b", "c"):
        words = ("--frames", 4, "--size", "64x48", "--seed", 3, "--world", "room")
        assert ttt3r("scene", *words, "--out", f"{name}.mp4", "--truth", f"data/{name}").status == 0
    image = tmp_path / "data" / "b" / "rgb" / "000002.png"
    intact = image.read_bytes()
    image.write_bytes(intact[:80])
    words = ("eval", "--task", "pose", "--protocol", "folder/stride1/all", "--data", "data", *MODEL)
    found = ttt3r(*words, "--out", "ev")
    assert found.status == 1 and "cannot be read: b. Replace" in found.err
    assert found.err.count("000002.png") == 1  # the reason is said once
    means = read_evaluation(Path("ev/ttt3r/summary.json")).means[-1]
    assert (means.count, means.failed) == (2, 1)
    assert ttt3r(*words, "--out", "ev", "--resume", "--sequences", "a", "c").status == 1
    names = read_evaluation(Path("ev/ttt3r/summary.json")).names
    assert names == ("a", "b", "c")  # what was found before stays
    image.write_bytes(intact)
    assert ttt3r(*words, "--out", "ev", "--resume").status == 0
    means = read_evaluation(Path("ev/ttt3r/summary.json")).means[-1]
    assert (means.count, means.failed) == (3, 0)


def test_a_sequence_that_cannot_be_opened_costs_itself_only(ttt3r: Ttt3r):
    for number, name in enumerate(("a", "b", "c")):
        folder(Path("data") / name, seed=number)
    poses = Path("data/b/poses.txt")
    intact = poses.read_text()
    poses.write_text(intact.replace(" 0 0 0 1", ""))
    found = ttt3r("eval", "--task", "pose", *OWN, "--rule", "ttt3r", "overwrite")
    assert found.status == 1 and found.err.count("is not 8 numbers") == 1
    assert "is not 8 numbers" in Path("ev/summary.md").read_text("utf-8")
    evaluation = read_evaluation(Path("ev/overwrite/summary.json"))
    assert (evaluation.means[-1].count, evaluation.means[-1].failed) == (2, 1)
    poses.write_text(intact)
    assert ttt3r("eval", "--task", "pose", *OWN, "--resume").status == 1  # overwrite lacks it
    assert ttt3r("eval", "--task", "pose", *OWN, "--resume", "--rule", "overwrite").status == 0


def test_other_rules_and_other_sequences_may_be_added(ttt3r: Ttt3r):
    for number, name in enumerate(("a", "b", "c")):
        folder(Path("data") / name, seed=number)
    assert ttt3r("eval", "--task", "pose", *OWN, "--sequences", "a", "b").status == 0
    words = ("--resume", "--rule", "overwrite", "--sequences", "b", "c")
    result = ttt3r("eval", "--task", "pose", *OWN, *words)
    assert result.status == 0, result.err
    found = {
        rule: read_evaluation(Path(f"ev/{rule}/summary.json")) for rule in ("ttt3r", "overwrite")
    }
    assert {rule: e.names for rule, e in found.items()} == {
        "ttt3r": ("a", "b"),
        "overwrite": ("b", "c"),
    }
    report = Path("ev/summary.md").read_text("utf-8")
    assert "cannot be ranked" in report and "3 sequences of folder" in report
    words = ("--resume", "--sequences", "a", "--pose-from", "points")
    assert ttt3r("eval", "--task", "pose", *OWN, *words).status == 0
    assert "ttt3r, points poses" in Path("ev/summary.md").read_text("utf-8")


def test_the_device_may_change(ttt3r: Ttt3r):
    assert ttt3r("eval", *SMALL, "--out", "ev").status == 0
    assert "device" not in json.loads(Path("ev/evaluation.json").read_text("utf-8"))
    assert '"device": "cpu"' in Path("ev/ttt3r/summary.json").read_text("utf-8")


def test_a_default_folder(ttt3r: Ttt3r):
    words = [*TASK[:-1], "synthetic/stride10/3", *MODEL, "--sequences", "stream-0"]
    assert ttt3r("eval", *words).status == 0
    assert Path("evaluations/pose-synthetic-stride10-3/summary.md").exists()


def test_reports_do_without_matplotlib(ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    result = ttt3r("eval", *SMALL, "--out", "ev")
    assert result.status == 0
    assert "warning: the report has no figures" in result.err and "ttt3r[eval]" in result.err
    assert "plots/" not in Path("ev/summary.md").read_text("utf-8")


def test_reconstruction_needs_scipy_and_says_so_at_once(
    ttt3r: Ttt3r, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.spatial", None)
    words = ("--task", "recon", "--protocol", "synthetic/step10/3", "--out", "ev")
    result = ttt3r("eval", *words, *MODEL)
    assert result.status == 2 and "ttt3r[eval]" in result.err and not Path("ev").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give --task and --protocol"),
        (("--task", "pose"), "tum-dynamics/stride1/1000"),
        (("--task", "pose", "--protocol", "mars/stride1/10"), "no dataset 'mars'"),
        (("--task", "pose", "--protocol", "tum-dynamics/stride1/10"), "give --data"),
        (
            ("--task", "pose", "--protocol", "tum-dynamics/stride1/10", "--data", "nowhere"),
            "nowhere does not exist",
        ),
        ((*SMALL, "--rule", "magic"), "magic"),
        ((*SMALL, "--pose-memory", "recal3r"), "the pose memory cannot follow recal3r"),
        ((*SMALL, "--reset", "1"), "at least 2 frames"),
        ((*SMALL, "--frames", "9"), "no length 9"),
        ((*SMALL, "--frames", "4,x"), "takes numbers"),
        ((*SMALL, "--size", "3"), "at least the patch"),
        ((*SMALL, "--model", "nowhere.safetensors"), "nowhere.safetensors"),
        ((*SMALL, "--resume", "--overwrite"), "either --resume or --overwrite"),
        (("--compare", "a.json", "b.json"), "a.json cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused(ttt3r: Ttt3r, words, message):
    result = ttt3r("eval", *words, "--out", "ev")
    assert result.status == 2, result.out
    assert len(result.errors) == 1 and message in result.err
    assert not Path("ev").exists() or not list(Path("ev").rglob("scores.json"))


def test_a_folder_with_other_files_is_left_alone(ttt3r: Ttt3r):
    Path("ev").mkdir()
    Path("ev/photo.jpg").write_text("mine")
    result = ttt3r("eval", *SMALL, "--out", "ev", "--overwrite")
    assert result.status == 2 and "holds other files" in result.err
    assert [path.name for path in Path("ev").iterdir()] == ["photo.jpg"]


def test_damaged_scores_are_named(ttt3r: Ttt3r):
    assert ttt3r("eval", *SMALL, "--out", "ev").status == 0
    path = Path("ev/ttt3r/sequences/stream-1/scores.json")
    path.write_text(json.dumps({"sequence": "stream-1"}))
    result = ttt3r("eval", *SMALL, "--out", "ev", "--resume")
    assert result.status == 2 and str(path) in result.err and "Delete it" in result.err


def test_nothing_is_reset_unless_asked_for():
    assert EvalCommand().reset is RunCommand("walk.mp4").reset is None


def test_lengths():
    assert parse_lengths(None) == ()
    assert parse_lengths("50, 100,all") == (50, 100, None)
    for text in ("", "a", "-5", "50;100"):
        with pytest.raises(SettingError, match="takes numbers"):
            parse_lengths(text)


def folder(path: Path, frames: int = 4, depth: int = 1000, seed: int = 0) -> Path:
    """A sequence of one's own, whose depth is `depth` (mm) everywhere."""
    random = np.random.default_rng(seed)
    for name in ("rgb", "depth"):
        (path / name).mkdir(parents=True)
    for i in range(frames):
        image = Image.fromarray(random.integers(0, 255, (48, 64, 3), np.uint8))
        image.save(path / "rgb" / f"{i:03d}.png")
        known = np.full((48, 64), depth, np.uint16)
        Image.fromarray(known).save(path / "depth" / f"{i:03d}.png")
    rows = random.normal(size=(frames, 3))
    lines = [f"{i} {x} {y} {z} 0 0 0 1" for i, (x, y, z) in enumerate(rows)]
    (path / "poses.txt").write_text("\n".join(lines))
    return path


OWN = ("--protocol", "folder/stride1/all", "--data", "data", *MODEL, "--out", "ev")


def test_a_sequence_without_truth_leaves_the_report_whole(ttt3r: Ttt3r):
    folder(Path("data/known"))
    folder(Path("data/unknown"), depth=0)
    result = ttt3r("eval", "--task", "depth", *OWN)
    assert result.status == 0, result.err
    report = Path("ev/summary.md").read_text("utf-8")
    assert "n = 1, 1 dropped" in report and "plots/known.png" in report
    assert "plots/unknown.png" not in report


@pytest.mark.parametrize("damage", [b"", b"PK nonsense"])
def test_figures_that_cannot_be_drawn_are_left_out(ttt3r: Ttt3r, damage: bytes):
    folder(Path("data/one"))
    assert ttt3r("eval", "--task", "depth", *OWN).status == 0
    Path("ev/ttt3r/sequences/one/depth.npz").write_bytes(damage)
    Path("ev/summary.md").unlink()
    result = ttt3r("eval", "--task", "depth", *OWN, "--resume")
    assert result.status == 0 and "warning: a figure is missing" in result.err
    assert "plots/one.png" not in Path("ev/summary.md").read_text("utf-8")


def test_other_data_are_not_mixed_in(ttt3r: Ttt3r):
    folder(Path("data/one"))
    assert ttt3r("eval", "--task", "pose", *OWN).status == 0
    Path("data/one/poses.txt").unlink()
    folder(Path("other/one"), seed=1)
    Path("other/one/poses.txt").rename("data/one/poses.txt")
    result = ttt3r("eval", "--task", "pose", *OWN, "--resume")
    assert result.status == 2 and "the data of one are not those" in result.err


def test_names_that_look_alike_and_links_are_sequences_of_their_own(ttt3r: Ttt3r):
    for number, name in enumerate(("a b", "a-b", "厨 房", "厨房")):
        folder(Path("data") / name, seed=number)
    folder(Path("elsewhere/scene"), seed=9)
    Path("data/link").symlink_to(Path("elsewhere/scene").resolve())
    assert ttt3r("eval", "--task", "pose", *OWN).status == 0
    found = read_evaluation(Path("ev/ttt3r/summary.json")).sequences
    assert sorted(s.sequence for s in found) == sorted(("a b", "a-b", "厨 房", "厨房", "link"))
    assert len({s.scores[0].metrics["ate"] for s in found}) == 5
