"""Running a plan: one pass for all lengths, resuming, failures, and what is refused."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.evaluation.tasks.told import protocol, scene
from tests.networks import random_tiny
from tests.vggt_networks import random_tiny as random_vggt
from ttt3r.errors import InputError, RunError, SettingError
from ttt3r.evaluation import machine, protocols, runner
from ttt3r.evaluation.reports.publish import publish
from ttt3r.evaluation.results import METRICS
from ttt3r.evaluation.runner import Plan, evaluate, make_plan, run_sequence, settings_of
from ttt3r.evaluation.sequences import Sequence
from ttt3r.evaluation.store import Store, evaluations_in
from ttt3r.evaluation.tasks import RECORDERS
from ttt3r.stream import clips
from ttt3r.stream.placing import place
from ttt3r.stream.session import Session

LENGTHS = (3, 5, None)


def model():
    return random_tiny("tiny_linear")


def policy():
    return dataclasses.replace(model().preparation, size=64)


def renamed(name, frames, seed) -> Sequence:
    sequence = scene(frames, seed=seed)
    sequence.name = name
    return sequence


def plan(task="pose", lengths=LENGTHS) -> Plan:
    sequences = (renamed("one", 7, 1), renamed("two", 4, 2))
    return Plan(protocol(task), lengths, sequences, ("one", "two"))


def settings(of: Plan, rule="ttt3r"):
    return settings_of(of, Session(model(), rule), 64, "float32")


def run(folder, of: Plan, rule="ttt3r", **how):
    one = settings(of, rule)
    with Store(folder, one, of.content, **how) as store:
        return evaluate(of, model(), store, one)


def without_times(evaluation):
    """What must not change from run to run."""
    return [
        (s.sequence, s.size, [dataclasses.replace(x, frames_per_second=None) for x in s.scores])
        for s in evaluation.sequences
    ]


@pytest.mark.parametrize("task", ["pose", "depth", "recon"])
def test_one_pass_scores_as_a_run_per_length_does(tmp_path, task):
    """Slow twin: a fresh session for every length."""
    sequence = renamed("one", 7, 1)

    def scores(of, lengths):
        recorder = RECORDERS[task](protocol(task), of, policy(), tmp_path)
        session = Session(model(), "ttt3r", None, recorder.outputs)
        return run_sequence(session, recorder, lengths).scores

    together = scores(sequence, LENGTHS)
    assert [score.frames for score in together] == [3, 5, 7]
    for score in together:
        (alone,) = scores(sequence.first(score.frames), (score.length,))
        assert alone.status == score.status == "ok"
        assert alone.metrics == score.metrics
        assert set(score.metrics) == {metric.key for metric in METRICS[task]}


@pytest.mark.parametrize("task", ["pose", "depth", "recon"])
def test_one_look_per_length_scores_as_looks_by_hand_do(tmp_path, task):
    """A network that looks once sees no more than the frames that are scored."""
    network = random_vggt("vggt")
    size = dataclasses.replace(network.preparation, size=56)
    of = Plan(protocol(task), LENGTHS, (renamed("one", 4, 1),))
    one = settings_of(of, clips.open_session(network), 56, "float32")
    assert one.rule == "once"
    with Store(tmp_path / "ev", one, of.content) as store:
        (found,) = evaluate(of, network, store, one).sequences
    assert [score.frames for score in found.scores] == [3, 4, 4]
    for score in found.scores:
        truth = renamed("one", 4, 1).first(score.frames)
        recorder = RECORDERS[task](protocol(task), truth, size, tmp_path)
        images = [recorder.prepare(true).image for true in truth]
        pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1
        with torch.no_grad():
            looked = network.predict(pixels[None], recorder.outputs)
        outputs = frozenset(recorder.outputs)
        for i in range(score.frames):
            recorder.take(place(looked.view(i), None, i, outputs, 0, torch.eye(4).double(), None))
        by_hand = recorder.score(score.frames)
        recorder.close()
        assert score.status == by_hand.status == "ok"
        assert score.metrics == pytest.approx(by_hand.metrics, rel=1e-3, abs=1e-5)


def test_a_signal_is_heard_while_a_clip_is_gathered(tmp_path, monkeypatch):
    network = random_vggt("vggt")
    of = Plan(protocol("pose"), (None,), (renamed("one", 7, 1),))
    one = settings_of(of, clips.open_session(network), 56, "float32")
    shown = []

    def progress(done):
        shown.append(done)
        if len(shown) == 3:
            raise KeyboardInterrupt

    def unwanted(*arguments):
        raise AssertionError("it looked")

    monkeypatch.setattr(type(network), "predict", unwanted)
    with Store(tmp_path, one, of.content) as store, pytest.raises(KeyboardInterrupt):
        evaluate(of, network, store, one, progress)
    assert shown == [0, 0, 0]


@pytest.mark.parametrize("task", ["pose", "depth", "recon"])
def test_an_evaluation_is_written_and_read_back(tmp_path, task):
    found = run(tmp_path, plan(task))
    assert [s.sequence for s in found.sequences] == ["one", "two"]
    assert [mean.length for mean in found.means] == [3, 5, None]
    assert [mean.count for mean in found.means] == [2, 2, 2]
    assert [mean.shorter for mean in found.means] == [0, 1, 0]
    assert evaluations_in(tmp_path) == [found]
    assert found.facts["torch"] == str(torch.__version__) and found.sequences[0].peak_memory
    assert not list(tmp_path.rglob("*.tmp"))


def test_stopped_anywhere_it_goes_on_to_the_same_numbers(tmp_path):
    whole = run(tmp_path / "whole", plan())
    for stop in (1, 6, 7, 10):
        folder, of = tmp_path / str(stop), plan()

        def halt(done, at=stop):
            if done >= at:
                raise KeyboardInterrupt

        one = settings(of)
        with pytest.raises(KeyboardInterrupt), Store(folder, one, of.content) as store:
            evaluate(of, model(), store, one, halt)
        assert not evaluations_in(folder)
        assert not list(folder.rglob("*.tmp"))
        seen = []
        with Store(folder, one, of.content, resume=True) as store:
            again = evaluate(of, model(), store, one, seen.append)
        assert without_times(again) == without_times(whole)
        assert again.means[0].metrics == whole.means[0].metrics
        assert seen[0] == (7 if stop > 7 else 0) and seen[-1] == 11


def test_rules_side_by_side(tmp_path):
    run(tmp_path, plan())
    run(tmp_path, plan(), "overwrite", resume=True)
    found = evaluations_in(tmp_path)
    assert [e.label for e in found] == ["overwrite", "ttt3r"]
    assert found[0].means[0].metrics != found[1].means[0].metrics


class Breaking(Session):
    """Runs out of memory at frame 4."""

    def push(self, image, **options):
        if self.index == 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore text")
        return super().push(image, **options)


def test_running_out_of_memory_is_a_failure_of_the_longer_lengths(tmp_path, monkeypatch):
    monkeypatch.setattr(clips, "Session", Breaking)
    found = run(tmp_path, plan())
    one, two = found.sequences
    assert [score.status for score in one.scores] == ["ok", "failed", "failed"]
    assert one.scores[1].note.startswith("frame 4: out of memory: CUDA out of memory. Tried")
    assert one.scores[1].frames == 4 and "more text" not in one.scores[1].note
    assert [score.status for score in two.scores] == ["ok", "ok", "ok"]  # it has four frames
    assert [mean.failed for mean in found.means] == [0, 1, 1]


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA"), MemoryError(), RuntimeError("can't allocate memory: 9 GB")],
)
def test_running_out_of_memory_while_scoring_is_a_failure(tmp_path, monkeypatch, error):
    def score(self, frames):
        raise error

    monkeypatch.setattr(RECORDERS["pose"], "score", score)
    found = run(tmp_path, plan())
    assert [mean.failed for mean in found.means] == [2, 2, 2]
    assert found.sequences[0].scores[0].note.startswith("scoring: out of memory: ")


def test_other_errors_of_the_network_are_not_hidden(tmp_path, monkeypatch):
    def score(self, frames):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(RECORDERS["pose"], "score", score)
    with pytest.raises(RuntimeError, match="shapes"):
        run(tmp_path, plan())


def test_frames_per_second_count_the_session_alone(tmp_path, monkeypatch):
    """Time passes while frames are prepared and scored, too."""
    now = [0.0]

    def clock(device):
        return now[0]

    class Timed(Session):
        def push(self, image, **options):
            now[0] += 0.5
            return super().push(image, **options)

    recorder = RECORDERS["pose"](protocol("pose"), scene(6), policy(), tmp_path)
    take = recorder.take

    def slow(prediction):
        now[0] += 100.0
        take(prediction)

    monkeypatch.setattr(recorder, "take", slow)
    monkeypatch.setattr(runner.machine, "clock", clock)
    scores = run_sequence(Timed(model(), "ttt3r", None, ("pose",)), recorder, (3, 6)).scores
    assert [score.frames_per_second for score in scores] == [2.0, 2.0]


def test_a_broken_frame_costs_one_sequence_and_is_tried_again(tmp_path, caplog):
    whole = list(scene(4))

    def read(index):
        if index == 2:
            raise InputError("frame 2 is broken")
        return whole[index]

    broken = Sequence("two", range(4), read)
    first, last = renamed("one", 7, 1), renamed("three", 5, 3)
    of = dataclasses.replace(
        plan(), sequences=(first, broken, last), known=("one", "two", "three"), unreadable={}
    )
    found = run(tmp_path, of)
    run(tmp_path, of, "overwrite", resume=True)
    assert caplog.text.count("frame 2 is broken") == 1  # and not again for another rule
    assert "two is left out: frame 2 is broken" in caplog.text
    assert [s.sequence for s in found.sequences] == ["one", "two", "three"]
    assert [(s.status, s.note) for s in found.sequences[1].scores] == [
        ("failed", "frame 2 is broken")
    ] * 3
    assert [mean.failed for mean in found.means] == [1, 1, 1]
    assert {s.status for s in found.sequences[2].scores} == {"ok"}
    with Store(tmp_path, settings(of), resume=True) as store:
        assert store.read("ttt3r", "one") and store.read("ttt3r", "three")
        assert not store.read("ttt3r", "two").readable
    fixed = dataclasses.replace(of, sequences=(first, renamed("two", 4, 2), last), unreadable={})
    again = run(tmp_path, fixed, resume=True)
    assert [mean.failed for mean in again.means] == [0, 0, 0]


def test_the_sequences_may_change_from_run_to_run(tmp_path):
    one, two, three = (renamed(name, 5, i) for i, name in enumerate(("one", "two", "three")))
    run(tmp_path, dataclasses.replace(plan(), sequences=(one, two)))
    found = run(tmp_path, dataclasses.replace(plan(), sequences=(one, three)), resume=True)
    assert [s.sequence for s in found.sequences] == ["one", "two", "three"]  # what is done stays
    assert evaluations_in(tmp_path) == [found] and not found.complete
    other = run(tmp_path, dataclasses.replace(plan(), sequences=(one,)), "overwrite", resume=True)
    assert [s.sequence for s in other.sequences] == ["one"]
    assert [len(e.sequences) for e in publish(tmp_path)] == [1, 3]


def test_the_device_keeps_its_number(monkeypatch):
    """The second GPU is not the first."""
    assert machine.facts(torch.device("cpu"))["device"] == "cpu"
    monkeypatch.setattr(torch.cuda, "get_device_name", str)
    facts = machine.facts(torch.device("cuda:1"))
    assert facts["device"] == facts["gpu"] == "cuda:1"


def test_a_full_disk_says_so_and_keeps_what_is_done(tmp_path, monkeypatch):
    from ttt3r.evaluation.spool import Spool

    of, append = plan("depth"), Spool.append
    whole = run(tmp_path / "whole", of)

    def full(self, rows):
        if "two" in self.path.parts:
            raise OSError(28, "No space left on device")
        append(self, rows)

    monkeypatch.setattr(Spool, "append", full)
    with pytest.raises(RunError, match=r"No space left.*--resume"):
        run(tmp_path / "part", of)
    with Store(tmp_path / "part", settings(of), resume=True) as store:
        assert store.read("ttt3r", "one") and store.read("ttt3r", "two") is None
    monkeypatch.setattr(Spool, "append", append)
    again = run(tmp_path / "part", of, resume=True)
    assert without_times(again) == without_times(whole)


# Plans


def one_protocol(name="synthetic/stride1/20"):
    return protocols.parse("pose", name)


def test_a_plan_opens_no_more_than_the_longest_length():
    made = make_plan(one_protocol(), Path(), (10, 5, 5))
    assert made.lengths == (5, 10)
    assert {len(sequence) for sequence in made.sequences} == {10}
    assert made.frames == 10 * len(made.sequences)
    assert make_plan(one_protocol(), Path()).lengths == (20,)


def test_some_sequences_are_a_part():
    known = one_protocol().data.sequences(Path(), "pose")
    made = make_plan(one_protocol(), Path(), names=(known[1], known[0]))
    assert [s.name for s in made.sequences] == list(known[:2]) and made.known == known


@pytest.mark.parametrize(
    ("lengths", "names", "message"),
    [
        ((0,), (), "0 frames are too few"),
        ((2, 20), (), "takes at least 3"),
        ((30,), (), "ends at 20 frames, so it has no length 30"),
        ((5, None), (), "no length all"),
    ],
)
def test_plans_that_make_no_sense(lengths, names, message):
    with pytest.raises(SettingError, match=message):
        make_plan(one_protocol(), Path(), lengths, names)


def test_a_sequence_that_is_not_there_is_named():
    with pytest.raises(InputError, match=r"(?s)no stream 'nowhere'.*contain: stream-0"):
        make_plan(one_protocol(), Path(), (5,), ("nowhere",))


def test_sequences_of_one_name_are_refused(tmp_path, monkeypatch):
    from ttt3r.evaluation.datasets.synthetic import Synthetic

    monkeypatch.setattr(Synthetic, "open", lambda *_: renamed("same", 4, 1))
    with pytest.raises(InputError, match="two sequences have one name"):
        make_plan(one_protocol(), Path())


def test_all_frames_come_last():
    made = make_plan(protocols.parse("pose", "synthetic/stride50/all"), Path(), (None, 5))
    assert made.lengths == (5, None)
    assert len(made.sequences[0]) == 1000  # rendered streams do not end
