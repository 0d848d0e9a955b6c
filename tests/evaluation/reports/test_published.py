import math
import re
from collections import Counter
from typing import get_args

import pytest

from ttt3r import rules
from ttt3r.evaluation import protocols
from ttt3r.evaluation.datasets.seven_scenes import SevenScenes
from ttt3r.evaluation.datasets.tum import TumDynamics
from ttt3r.evaluation.reports.published import (
    KINDS,
    Published,
    Statistic,
    published_for,
    read_published,
    read_speeds,
)
from ttt3r.evaluation.results import METRICS

ADDRESS = re.compile(r"arXiv:\d{4}\.\d{5}|github\.com/\S+")
ENTRIES = read_published()


def values(task, protocol, length, key, **attributes):
    return [
        entry.metrics[key]
        for entry in published_for(task, protocol, length)
        if key in entry.metrics
        and all(getattr(entry, name) == value for name, value in attributes.items())
    ]


def test_known_numbers_are_found():
    certain = {"rule": "ttt3r", "doubt": ""}
    assert values("pose", "tum-dynamics/stride3/90", 90, "ate", **certain) == [0.028]
    assert values("pose", "scannet/stride3/1000", 1000, "ate", rule="overwrite") == [0.817, 0.671]
    assert values("depth", "sintel/stride1/all", None, "scale/delta_1", **certain) == [0.5, 0.491]
    assert values("recon", "7scenes/step2/200", 200, "chamfer", rule="ttt3r") == [0.026]
    assert values("recon", "nrgbd/step500/all", None, "accuracy", method="CUT3R") == [0.098, 0.099]


def test_numbers_depend_on_the_frames_and_not_on_how_a_protocol_limits_them():
    short = published_for("pose", "scannet/stride3/90", 90)
    assert short == published_for("pose", "scannet/stride3/1000", 90)
    assert short == published_for("pose", "scannet/stride3/90", None)
    assert published_for("recon", "7scenes/step2/400", 200) == published_for(
        "recon", "7scenes/step2/200", None
    )
    assert not published_for("pose", "scannet/stride1/90", 90)
    assert not published_for("pose", "scannet/stride3/1000", 91)
    assert not published_for("pose", "scannet/stride3/all", None)
    assert not published_for("depth", "scannet/stride3/90", 90)


@pytest.mark.parametrize("line", range(2, len(ENTRIES) + 2))
def test_every_line_is_sound(line):
    """Lines count as in an editor."""
    entry = ENTRIES[line - 2]
    assert entry.task in METRICS and entry.kind in KINDS
    assert entry.statistic in get_args(Statistic)
    protocol = protocols.parse(entry.task, entry.protocol)
    assert protocol.name == entry.protocol and protocol.variant == "published"
    offered = {(known.protocol.task, known.protocol.name.rpartition("/")[0])
               for known in protocols.known()}  # fmt: skip
    assert (entry.task, entry.protocol.rpartition("/")[0]) in offered
    limit = entry.protocol.rpartition("/")[2]
    assert limit == "all" or (entry.length is not None and 0 < entry.length <= int(limit))
    assert entry.n is None or entry.n > 0
    assert ADDRESS.search(entry.source) or entry.remark == "no address is known"
    known = {metric.key: metric for metric in METRICS[entry.task]}
    assert entry.metrics and entry.metrics.keys() <= known.keys()
    for key, value in entry.metrics.items():
        assert math.isfinite(value) and value > 0.0
        assert known[key].better != "higher" or value <= 1.0, "a fraction, not percent"
    expected = {"CUT3R": "overwrite", "TTT3R": "ttt3r"}.get(entry.method)
    assert entry.rule == expected
    if entry.rule is not None:
        rules.parse(entry.rule)


def test_no_number_is_there_twice():
    found = Counter(
        (e.task, e.protocol, e.length, e.method, e.kind, e.source, e.statistic, e.sequences,
         e.doubt, metric)
        for e in ENTRIES
        for metric in e.metrics
    )  # fmt: skip
    assert set(found.values()) == {1}


def test_single_sequences_are_called_as_their_readers_call_them(tmp_path):
    known = {
        "pose": TumDynamics().sequences(tmp_path, "pose"),
        "recon": SevenScenes().sequences(tmp_path, "recon"),
    }
    single = [entry for entry in ENTRIES if entry.sequences]
    assert single
    for entry in single:
        assert set(entry.sequences) <= set(known[entry.task])


def test_titles_say_what_is_unusual():
    entry = Published("pose", "scannet/stride3/90", 90, "TTT3R", "rerun", "x", {"ate": 0.25})
    several = Published(
        "pose", "scannet/stride3/90", 90, "TTT3R", "rerun", "x", {"ate": 0.25},
        statistic="median", sequences=("a", "b"),
    )  # fmt: skip
    assert (entry.title, several.title) == ("TTT3R", "TTT3R, 2 sequences, median")
    single = {entry.title for entry in ENTRIES if len(entry.sequences) == 1}
    assert "TTT3R, heads/seq-01" in single


def test_speeds():
    speeds = read_speeds()
    assert {speed.method for speed in speeds} == {"CUT3R", "TTT3R"}
    assert max(speed.frames_per_second or 0.0 for speed in speeds) == 20.0
    for speed in speeds:
        assert ADDRESS.search(speed.source)
        assert speed.frames_per_second or speed.gigabytes
