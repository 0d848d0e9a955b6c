"""The notation of rules, resets and stitchings."""

import pytest

from ttt3r import rules, values
from ttt3r.errors import SettingError
from ttt3r.rules import Damped, Overwrite, Ttt3r
from ttt3r.stream import resets, stitching


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ttt3r", Ttt3r()),
        (" overwrite() ", Overwrite()),
        ("damped(ttt3r, 0.5)", Damped(Ttt3r(), 0.5)),
        ("damped(ttt3r, 1)", Damped(Ttt3r(), 1.0)),
        ("damped(factor=0.5, rule=overwrite)", Damped(Overwrite(), 0.5)),
        ("damped(damped(ttt3r, 0.3), 0.1)", Damped(Damped(Ttt3r(), 0.3), 0.1)),
    ],
)
def test_round_trip(text, value):
    assert rules.parse(text) == value
    assert rules.parse(values.to_text(value)) == value
    assert rules.parse(value) is value


def test_defaults_are_left_out():
    assert values.to_text(stitching.Similarity()) == "similarity"
    assert values.to_text(stitching.Similarity(2)) == "similarity(stride=2)"
    assert stitching.parse("similarity(stride=2)") == stitching.Similarity(2)


def test_reset_policies():
    assert resets.parse(None) == resets.parse("never") == resets.Never()
    assert resets.parse(100) == resets.parse("100") == resets.parse("every(100)")
    assert values.to_text(resets.Every(7)) == "every(7)"
    assert [i for i in range(9) if resets.Every(3).ends_segment(i)] == [2, 5, 8]
    assert not any(resets.Never().ends_segment(i) for i in range(1000))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing",
        "ttt3r(1)",
        "damped",
        "damped(ttt3r)",
        "damped(ttt3r, 0.5, 1)",
        "damped(ttt3r, 0.5, factor=0.1)",
        "damped(0.5, ttt3r)",
        "damped(0.5, 0.5)",
        "damped(ttt3r, 0)",
        "damped(ttt3r, 'a')",
        "damped(ttt3r, **x)",
        "damped(*x)",
        "ttt3r.name",
        "__import__('os').system('true')",
        "[r for r in x]",
        "(" * 5000,
        "3",
        "ttt3r\0",
    ],
)
def test_hostile_text(text):
    with pytest.raises(SettingError):
        rules.parse(text)
