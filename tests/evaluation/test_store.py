"""The folder of an evaluation: who may write, what is kept, and what is refused."""

import dataclasses
import errno
import json

import pytest

from tests.evaluation.test_results import ok, sequence, settings
from ttt3r.errors import RunError
from ttt3r.evaluation import store
from ttt3r.evaluation.results import FORMAT, Evaluation
from ttt3r.evaluation.spool import Spool
from ttt3r.evaluation.store import SCORES, Store, evaluations_in, explained, slug


def filled(folder, one=None, names=("a/b",)):
    one = one or settings(lengths=(10,))
    scores = sequence("a/b", *(ok(length, 10, 1.0) for length in one.lengths))
    with Store(folder, one, dict.fromkeys(names, "")) as opened:
        opened.write("ttt3r", scores)
        opened.write_summary(Evaluation(one, (scores,)))
    return scores


def test_scores_are_found_again(tmp_path):
    scores = filled(tmp_path / "out")
    with Store(tmp_path / "out", settings(lengths=(10,)), resume=True) as opened:
        assert opened.read("ttt3r", "a/b") == scores
        assert opened.read("ttt3r", "c") is None
        assert opened.read("overwrite", "a/b") is None
    assert [e.label for e in evaluations_in(tmp_path / "out")] == ["ttt3r"]


def test_rules_and_resets_may_differ_and_nothing_else(tmp_path):
    filled(tmp_path)
    other = dataclasses.replace(settings(lengths=(10,)), rule="overwrite", reset="every(5)")
    Store(tmp_path, other, resume=True).close()
    changed = dataclasses.replace(other, lengths=(10, 20), fingerprint="11")
    with pytest.raises(RunError, match=r"fingerprint: was \"00\", now \"11\"\n  lengths: was"):
        Store(tmp_path, changed, resume=True)


def test_other_data_of_the_same_name_are_refused_once_they_are_scored(tmp_path):
    one = settings(lengths=(10,))
    scored = sequence("a/b", ok(10, 10, 1.0))
    unreadable = dataclasses.replace(scored, sequence="c", digest="", seconds=None)
    with Store(tmp_path, one, {"a/b": "abc", "c": "2"}) as opened:
        opened.write("ttt3r", scored)
        opened.write("overwrite", unreadable)
    for content in ({"a/b": "abc", "c": "3"}, {"d": "4"}, {"a/b": ""}):  # repaired, other, unknown
        Store(tmp_path, one, content, resume=True).close()
    for content in ({"a/b": "5"}, {"a/b": "5", "d": "4"}):
        with pytest.raises(RunError, match="the data of a/b are not those"):
            Store(tmp_path, one, content, resume=True)


def test_scores_of_another_sequence_are_refused(tmp_path):
    filled(tmp_path)
    rule = tmp_path / "ttt3r" / "sequences"
    (rule / slug("a/b")).rename(rule / "c")
    with (
        Store(tmp_path, settings(lengths=(10,)), resume=True) as opened,
        pytest.raises(RunError, match="holds the scores of 'a/b', not of 'c'"),
    ):
        opened.read("ttt3r", "c")


def test_a_second_evaluation_needs_a_decision(tmp_path):
    filled(tmp_path)
    with pytest.raises(RunError, match="--resume to continue it, --overwrite to replace"):
        Store(tmp_path, settings(lengths=(10,)))
    with pytest.raises(RunError, match="either --resume or --overwrite"):
        Store(tmp_path, settings(lengths=(10,)), resume=True, overwrite=True)


def test_what_an_older_version_left_can_be_replaced_only(tmp_path):
    filled(tmp_path)
    for path in (tmp_path / "evaluation.json", *tmp_path.glob("*/summary.json")):
        path.write_text(path.read_text().replace(FORMAT, "ttt3r-evaluation-1"))
    with pytest.raises(RunError, match="written by another version; use --overwrite"):
        Store(tmp_path, settings(lengths=(10,)), resume=True)
    Store(tmp_path, settings(lengths=(10,)), overwrite=True).close()
    assert evaluations_in(tmp_path) == []


def test_overwriting_deletes_only_our_own(tmp_path):
    filled(tmp_path, names=("a", "a/b"))
    (tmp_path / "summary.md").write_text("old")
    mine = [
        "ttt3r/mine.txt",
        "photo.jpg",
        "plots/mine.pdf",
        "dataset/sequences/00/calib.txt",
        "notes/summary.json",
    ]
    ours = ["plots/lengths.png", "plots/a.png", "ttt3r/sequences/a/.truth.tmp", "old/summary.json"]
    for name in (*mine, *ours):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("ttt3r-evaluation-1" if name.startswith("old") else "mine")
    with Store(tmp_path, settings(lengths=(20,)), overwrite=True) as opened:
        assert opened.read("ttt3r", "a/b") is None
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {".lock", "evaluation.json", *mine}


def test_folders_of_others_are_left_alone(tmp_path):
    (tmp_path / "photo.jpg").write_text("mine")
    for decision in ({}, {"resume": True}, {"overwrite": True}):
        with pytest.raises(RunError, match="holds other files"):
            Store(tmp_path, settings(), **decision)
    with pytest.raises(RunError, match="is a file"):
        Store(tmp_path / "photo.jpg", settings())
    assert [path.name for path in tmp_path.iterdir()] == ["photo.jpg"]


@pytest.mark.parametrize("content", ["", "[]", '{"format": "other"}'])
def test_a_strange_manifest_is_refused(tmp_path, content):
    (tmp_path / store.MANIFEST).write_text(content)
    with pytest.raises(RunError, match=store.MANIFEST):
        Store(tmp_path, settings())


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"sequence": "a", "size": 3, "scores": []}'])
def test_damaged_scores_are_named(tmp_path, content):
    filled(tmp_path)
    (tmp_path / "ttt3r" / "sequences" / slug("a/b") / SCORES).write_text(content)
    with (
        Store(tmp_path, settings(lengths=(10,)), resume=True) as opened,
        pytest.raises(RunError, match="Delete it, then --resume"),
    ):
        opened.read("ttt3r", "a/b")


def test_two_writers_never_meet(tmp_path):
    with (
        Store(tmp_path, settings()),
        pytest.raises(RunError, match="another process"),
    ):
        Store(tmp_path, settings())
    Store(tmp_path, settings()).close()


def test_system_errors_say_how_to_go_on(tmp_path):
    with pytest.raises(RunError, match="What is done is kept"), explained(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_names_become_file_names():
    assert slug("stream-0") == "stream-0" and slug("厨房") == "厨房"
    assert slug("chess/seq-03").startswith("chess-seq-03-")
    assert slug("damped(ttt3r, 0.5)").startswith("damped-ttt3r-0.5-")
    strange = ["../..", "a b", "a-b", "a/b", "厨/房", "厨 房", ".", "..", "-", " ", "a.", "a", "A"]
    names = [slug(name) for name in strange]
    assert len({name.casefold() for name in names}) == len(names)
    assert not any("/" in name or name in ("", ".", "..") for name in names)


def test_the_manifest_says_what_rules_have_in_common(tmp_path):
    filled(tmp_path)
    content = json.loads((tmp_path / store.MANIFEST).read_text("utf-8"))
    assert content["protocol"] == "folder/stride1/20" and "rule" not in content


def test_a_spool_grows_and_is_read_back(tmp_path):
    import numpy as np

    from ttt3r.errors import InputError

    rows = np.random.default_rng(0).normal(size=(7, 2, 3)).astype(np.float32)
    spool = Spool(tmp_path / "spool", np.float32)
    assert len(spool.rows()) == 0
    spool.append(rows[:0])
    spool.append(rows[:4])
    spool.append(rows[4:, ::1].astype(np.float64))  # converted
    assert np.array_equal(spool.rows(), rows) and np.array_equal(spool.rows(3), rows[:3])
    assert spool.rows(0).shape == (0, 2, 3) and spool.count == 7
    with pytest.raises(InputError, match="cannot follow"):
        spool.append(np.zeros((1, 3, 2), np.float32))
    spool.close()
    assert not (tmp_path / "spool").exists()
