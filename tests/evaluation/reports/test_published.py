import re

import pytest

from tests.evaluation.evaluations import POSE
from ttt3r.errors import InputError
from ttt3r.evaluation import protocols
from ttt3r.evaluation.datasets.seven_scenes import SevenScenes
from ttt3r.evaluation.datasets.tum import TumDynamics
from ttt3r.evaluation.reports.published import (
    Published,
    parse_published,
    parse_speeds,
    published_for,
    read_published,
    read_speeds,
)
from ttt3r.evaluation.results import METRICS

ENTRY = """\
[[results]]
task = "pose"
protocol = "scannet/stride3/1000"
length = 500
method = "TTT3R"
rule = "ttt3r"
kind = "rerun"
source = "somebody"
metrics = { ate = 0.25 }
n = 65
"""


def values(task, protocol, length, key, **attributes):
    return [
        entry.metrics[key]
        for entry in published_for(task, protocol, length)
        if key in entry.metrics
        and all(getattr(entry, name) == value for name, value in attributes.items())
    ]


# The packaged file


def test_known_numbers_are_found():
    certain = {"rule": "ttt3r", "certain": True}
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


def test_every_protocol_is_one_that_can_be_run():
    for entry in read_published():
        assert protocols.parse(entry.task, entry.protocol).name == entry.protocol


def test_every_number_belongs_to_a_protocol_that_is_offered():
    offered = {
        (known.protocol.task, known.protocol.name.rpartition("/")[0]) for known in protocols.known()
    }
    assert {(e.task, e.protocol.rpartition("/")[0]) for e in read_published()} <= offered


def test_single_sequences_are_called_as_their_readers_call_them(tmp_path):
    known = {
        "pose": TumDynamics().sequences(tmp_path, "pose"),
        "recon": SevenScenes().sequences(tmp_path, "recon"),
    }
    single = [entry for entry in read_published() if entry.sequences]
    assert single
    for entry in single:
        assert set(entry.sequences) <= set(known[entry.task])


def test_our_rules_are_named_and_others_are_not():
    rules = {entry.method: entry.rule for entry in read_published()}
    assert rules["CUT3R"] == "overwrite" and rules["TTT3R"] == "ttt3r"
    assert {rule for method, rule in rules.items() if method not in ("CUT3R", "TTT3R")} == {None}


def test_uncertain_numbers_say_why():
    uncertain = [entry for entry in read_published() if not entry.certain]
    assert uncertain and all(entry.reason for entry in uncertain)


def test_speeds():
    fastest = max(speed.frames_per_second or 0.0 for speed in read_speeds())
    assert fastest == 20.0
    assert {speed.method for speed in read_speeds()} == {"CUT3R", "TTT3R"}


# Validation


def test_an_entry_by_hand():
    (entry,) = parse_published(ENTRY)
    assert entry == Published(
        task="pose",
        protocol="scannet/stride3/1000",
        length=500,
        method="TTT3R",
        kind="rerun",
        source="somebody",
        metrics={"ate": 0.25},
        rule="ttt3r",
        n=65,
    )
    assert entry.title == "TTT3R"
    assert entry.metrics.keys() <= {metric.key for metric in METRICS[POSE.task]}


def test_titles_say_what_is_unusual():
    text = ENTRY + 'statistic = "median"\nsequences = ["a", "b"]\n'
    assert parse_published(text)[0].title == "TTT3R, 2 sequences, median"
    assert parse_published(ENTRY + 'sequences = ["a"]')[0].title == "TTT3R, a"


def test_all_frames_are_none():
    text = ENTRY.replace("scannet/stride3/1000", "sintel/stride1/all").replace("500", '"all"')
    assert parse_published(text)[0].length is None


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("n = 65", "n = [", "is no TOML"),
        ("[[results]]", "[results]", "must be written as [[results]]"),
        ("[[results]]", "[[rows]]", "not rows"),
        ('method = "TTT3R"\n', "", "missing fields: method"),
        ("n = 65", "note = 3", "unknown fields: note"),
        ('"pose"', '"flow"', "task is 'flow'; choose one of pose, depth, recon"),
        ('"pose"', "3", "task is 3"),
        ('"rerun"', '"rumour"', "kind is 'rumour'"),
        ("n = 65", 'statistic = "mode"', "statistic is 'mode'"),
        ('"somebody"', '" "', "source must be a text"),
        ('"ttt3r"', "7", "rule must be a text"),
        ("scannet/stride3/1000", "ScanNet, long", "is not DATASET/strideK/N"),
        ("1000", "1000/corrected", "is not DATASET/strideK/N"),
        ("500", '"many"', "length is 'many'"),
        ("500", "0", "length is 0"),
        ("500", "true", "length is True"),
        ("500", "2000", "has no length of 2000"),
        ("500", '"all"', "has no length of all"),
        ("65", "-1", "n is -1"),
        ("n = 65", 'sequences = "a"', "must be a list of names"),
        ("n = 65", "sequences = [1]", "must be a list of names"),
        ("n = 65", "certain = false", "certain = false needs a reason"),
        ("n = 65", 'reason = "no idea"', "certain = false needs a reason"),
        ("n = 65", 'certain = "yes"', "certain = false needs a reason"),
        ("ate = 0.25", "", "at least one number"),
        ("{ ate = 0.25 }", "0.25", "at least one number"),
        ("ate =", "ATE =", "unknown metrics ATE; known: ate, ate_percent"),
        ("0.25", "25", "ate is 25, but must be a positive decimal"),
        ("0.25", "-0.25", "ate is -0.25"),
        ("0.25", "nan", "ate is nan"),
        ("0.25", '"0.25"', "ate is '0.25'"),
    ],
)
def test_broken_entries_are_refused(old, new, message):
    assert old in ENTRY
    with pytest.raises(InputError, match=re.escape(message)):
        parse_published(ENTRY.replace(old, new))


def test_messages_say_which_entry_is_meant():
    with pytest.raises(InputError, match="result 2: n is 0"):
        parse_published(ENTRY + ENTRY.replace("65", "0").replace("ate", "rpe_rotation"))


def test_percent_are_refused():
    depth = ENTRY.replace('"pose"', '"depth"').replace("ate = 0.25", '"scale/delta_1" = 93.7')
    with pytest.raises(InputError, match="must be a fraction, not percent"):
        parse_published(depth)


def test_the_same_number_twice_is_refused():
    with pytest.raises(InputError, match="result 2: TTT3R has its ate twice"):
        parse_published(ENTRY + ENTRY.replace("0.25", "0.26"))
    assert len(parse_published(ENTRY + ENTRY.replace("somebody", "somebody else"))) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('method = "a"\nsource = "b"', "neither frames_per_second nor gigabytes"),
        ('method = "a"\ngigabytes = 6.0', "missing fields: source"),
        ('method = "a"\nsource = "b"\ngigabytes = 0.0', "gigabytes is 0.0"),
        ('method = "a"\nsource = 1\ngigabytes = 6.0', "source must be a text"),
        ('method = "a"\nsource = "b"\nwatts = 6.0', "unknown fields: watts"),
    ],
)
def test_broken_speeds_are_refused(text, message):
    with pytest.raises(InputError, match=f"speed 1: {message}"):
        parse_speeds(f"[[speeds]]\n{text}\n")
