"""Loops: found, verified, and closed; the network is a fake one with a known drift."""

import itertools
import shutil
from pathlib import Path

import pytest
import torch

from tests.stream.room import Room, circle, images
from ttt3r import weights
from ttt3r.cli import main
from ttt3r.errors import RunError, SettingError
from ttt3r.geometry import se3, sim3
from ttt3r.models.base import WeightsInfo
from ttt3r.runs.folder import RunFolder
from ttt3r.runs.placement import PLACEMENT, Placement
from ttt3r.runs.reader import Run
from ttt3r.stream.loops.candidates import Candidate, chosen_frames, find_candidates
from ttt3r.stream.loops.closing import close_loops
from ttt3r.stream.loops.remembered import Remembered, Shown
from ttt3r.stream.loops.verify import agree, place_of, verify
from ttt3r.stream.reconstruct import reconstruct

DRIFT = (0.03, 0.05, 0.02)


def end_error(run: Run, truth: torch.Tensor) -> float:
    """How far the last camera is from where it was, in the first camera's frame."""
    last = run.trajectory().world_from_camera[-1, :3, 3].double()
    return float((last - (se3.invert(truth[0]) @ truth[-1])[:3, 3]).norm())


def test_the_end_of_a_round_is_where_it_began(tmp_path):
    """600 frames that return to their start, in segments of 60 that drift."""
    truth = circle(600)
    settings = dict(reset="every(60)", stitch="robust", loops=True)
    out = RunFolder(tmp_path / "run", checkpoint_every=600)
    made = reconstruct(images(600), model=Room(truth, DRIFT), out=out, **settings)
    assert sum(1 for _ in made) == 600
    closed, plain = Run.open(tmp_path / "run"), Run.open(tmp_path / "run")
    plain.placement = Placement()
    assert end_error(closed, truth) <= end_error(plain, truth) / 4
    assert end_error(plain, truth) > 0.5
    names = {path.name for path in (tmp_path / "run" / "segments").iterdir()}
    assert names == {f"{segment:03d}.safetensors" for segment in range(10)}
    assert made.closing is not None and len(made.closing.used) == len(made.closing.loops) > 1
    around = made.closing.loops[0]
    assert {around.old, around.new} <= {*range(10), *range(590, 600)}
    assert around.after.shift < around.before.shift / 4
    assert closed.placement.segments_text == f"{len(made.closing.used)} loops closed"
    # Scales of the segments wander by 2 % each, and come back.
    scales = [item.scale for item in closed.scales()]
    assert max(scales) / min(scales) < 1.05 < plain.scales()[-1].scale


COUNT, SETTINGS = 48, dict(reset="every(6)", stitch="robust", loops=True)


@pytest.fixture(scope="module")
def room() -> Room:
    return Room(circle(COUNT), DRIFT)


@pytest.fixture(scope="module")
def made(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 48 frames in eight segments, with its loops closed; not to be changed."""
    out = tmp_path_factory.mktemp("loops") / "run"
    list(reconstruct(images(COUNT), model=room, out=out, **SETTINGS))
    return out


def test_states_that_were_not_kept_are_made_again(made, room, tmp_path):
    """The slow twin: the same corrections from the frames alone; done anew, not on top."""
    copied = Path(shutil.copytree(made, tmp_path / "copied"))
    shutil.rmtree(copied / "segments")
    close_loops(Run.open(copied), room)
    again, before = Placement.read(copied), Placement.read(made)
    assert again.segments_text == before.segments_text != ""
    for one, other in zip(again.segments, before.segments, strict=True):
        # Segments are placed through poses that are stored in float32.
        torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


def test_a_similarity_of_the_whole_is_kept(made, room, tmp_path):
    copied = Path(shutil.copytree(made, tmp_path / "copied"))
    moved = sim3.exp(torch.tensor([1.0, 2, 3, 0, 0, 0.5, 0.7]).double())
    Placement(world=moved, world_text="by hand", metric=True).write(copied)
    close_loops(Run.open(copied), room)
    found, before = Placement.read(copied), Placement.read(made)
    assert (found.world_text, found.metric) == ("by hand", True)
    torch.testing.assert_close(found.world, moved)
    for one, other in zip(found.segments, before.segments, strict=True):
        torch.testing.assert_close(one, other)


def test_stopped_and_resumed_closes_the_same_loops(made, room, tmp_path):
    out = tmp_path / "run"
    with reconstruct(images(COUNT), model=room, out=out, **SETTINGS) as part:
        list(itertools.islice(part, 20))
    assert part.closing is None and not (out / PLACEMENT).exists()
    list(reconstruct(images(COUNT), model=room, out=RunFolder(out, resume=True), **SETTINGS))
    assert (out / PLACEMENT).read_bytes() == (made / PLACEMENT).read_bytes()
    files = sorted(path.name for path in (made / "segments").iterdir())
    assert files == sorted(path.name for path in (out / "segments").iterdir())
    RunFolder(out, overwrite=True).clear()
    assert not list((out / "segments").iterdir())


def test_frames_that_show_other_places_are_no_loop(made, room):
    remembered = Remembered(Run.open(made), room)
    assert verify(remembered, Candidate(0, COUNT - 1, 0, 7, 1.0)) is not None
    assert verify(remembered, Candidate(0, COUNT // 2, 0, 4, 1.0)) is None


def test_what_the_two_segments_do_not_agree_on_is_no_loop(made, room, monkeypatch):
    """As where a network takes an unknown image for the place that it saw last."""
    remembered, ask = Remembered(Run.open(made), room), Remembered.ask

    def lying(self, segment, index):
        said = ask(self, segment, index)
        return Shown(said.points + 2.0 * (segment == 0), said.confidence)

    monkeypatch.setattr(Remembered, "ask", lying)
    assert verify(remembered, Candidate(0, COUNT - 1, 0, 7, 1.0)) is None


def test_agreement_is_judged_where_the_frame_is():
    """A turn about a far origin is a large shift at the place, and the other way round."""
    far = se3.assemble(torch.eye(3).double(), torch.tensor([100.0, 0, 0]).double())
    turn = sim3.exp(torch.tensor([0, 0, 0, 0, 0, 0.01, 0]).double())
    one = torch.eye(4).double()
    assert agree(one, turn, one) and not agree(one, turn, far)
    assert agree(one, far @ turn @ se3.invert(far), far)
    assert not agree(one, sim3.exp(torch.tensor([0, 0, 0, 0, 0, 0, 0.3]).double()), one)


def test_a_frame_without_pose_or_depth_has_no_place(made):
    frame = Run.open(made)[3]
    assert place_of(frame) is not None
    frame.world_from_camera[0, 0] = torch.nan
    assert place_of(frame) is None


def test_neighbours_are_no_candidates_and_one_pair_stands_for_those_beside_it():
    segments = torch.arange(8).repeat_interleave(3)
    frames = torch.arange(24)
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(8, 16, generator=generator).repeat_interleave(3, 0)
    features[21:] = features[0:3]  # the last segment is where the first was …
    features[18:21] = features[0:3] + 0.1  # … and the one before almost
    features[12:15] = features[9:12]  # neighbours, which do not count
    found = find_candidates(features, frames, segments)
    assert (found[0].old_segment, found[0].new_segment) == (0, 7)
    assert found[0].alike == pytest.approx(1.0)
    pairs = {(item.old_segment, item.new_segment) for item in found}
    assert (0, 6) not in pairs and all(new - old >= 2 for old, new in pairs)


def test_some_frames_of_each_segment_are_compared():
    segments = torch.tensor([0] * 3 + [1] * 100 + [2])
    chosen = chosen_frames(segments).tolist()
    assert chosen[:3] == [0, 1, 2] and chosen[-1] == 103 and len(chosen) == 3 + 8 + 1
    assert chosen[3] == 3 and chosen[-2] == 102


def test_on_the_command_line(made, room, tmp_path, monkeypatch, capsys):
    copied = Path(shutil.copytree(made, tmp_path / "copied"))
    (copied / PLACEMENT).unlink()
    asked = []
    monkeypatch.setattr(weights, "load", lambda name, *rest: asked.append(name) or room)
    assert main(["loops", str(copied)]) == 0
    assert asked == ["room"] and "were closed" in capsys.readouterr().out
    assert Placement.read(copied).segments_text == Placement.read(made).segments_text


def test_what_cannot_be_closed(made, room, tmp_path):
    for settings in (dict(reset=4), dict(out=tmp_path / "a"), dict(out=tmp_path / "a", reset=None)):
        with pytest.raises(SettingError, match="a folder"):
            reconstruct(images(4), model=room, loops=True, **settings)
    list(reconstruct(images(8), model=room, out=tmp_path / "b", reset=4))
    assert close_loops(Run.open(tmp_path / "b"), room).tried == 0
    other = Room(circle(4))
    other.weights = WeightsInfo("other", "none", "tests", "1" * 64)
    with pytest.raises(RunError, match="give it those"):
        close_loops(Run.open(made), other)
    list(reconstruct(images(8), model=room, out=tmp_path / "c", reset=2, outputs=("pose",)))
    with pytest.raises(RunError, match="points and poses"):
        close_loops(Run.open(tmp_path / "c"), room)


def test_one_look_per_segment_remembers_none(tmp_path):
    from tests.vggt_networks import random_tiny as random_vggt

    with pytest.raises(SettingError, match="remembers none"):
        reconstruct([], model=random_vggt("vggt"), out=tmp_path / "a", reset=3, loops=True)
