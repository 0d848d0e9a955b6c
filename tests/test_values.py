"""The notation of rules, resets and stitchings."""

import math
import subprocess
import sys
from dataclasses import dataclass, fields
from typing import ClassVar, get_type_hints

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@pytest.mark.parametrize("registry", [rules.REGISTRY, resets.REGISTRY, stitching.REGISTRY])
@pytest.mark.parametrize("value", [5, 2.5, True, b"ttt3r", object(), ["never"], Ttt3r, values])
def test_a_value_of_another_kind_is_refused(registry, value):
    with pytest.raises(SettingError, match="known names are"):
        registry.parse(value)


@pytest.mark.parametrize("policy", [2.5, True, 0, "2.5", "every(2.5)", "every(True)", "every('a')"])
def test_resets_of_the_wrong_type(policy):
    with pytest.raises(SettingError):
        resets.parse(policy)


@pytest.mark.parametrize("text", ["similarity(0)", "similarity(2.5)", "similarity(stride=-1)"])
def test_stitchings_of_the_wrong_type(text):
    with pytest.raises(SettingError):
        stitching.parse(text)


def test_none_is_the_default():
    assert rules.parse(None) == rules.REGISTRY.parse() == Ttt3r()
    assert resets.parse(None) == resets.Never()
    assert stitching.parse(None, metric=True) == stitching.PoseChain()
    assert stitching.parse(None, metric=False) == stitching.Similarity()
    with pytest.raises(SettingError):
        stitching.REGISTRY.parse(None)


def test_values_check_themselves_without_any_type_checker():
    """In a process of its own, because the checker of the tests speaks first in this one."""
    code = """
from ttt3r.errors import SettingError
from ttt3r.rules import Damped, Ttt3r
from ttt3r.stream.resets import Every
from ttt3r.stream.stitching import Similarity
wrong = [(Every, 2.5), (Every, True), (Every, "5"), (Similarity, 0), (Similarity, 1.0),
         (Damped, 1, 0.5), (Damped, Ttt3r(), "a"), (Damped, Ttt3r(), True)]
for cls, *arguments in wrong:
    try:
        print("taken:", cls(*arguments))
    except SettingError:
        pass
assert repr(Damped(Ttt3r(), 1).factor) == "1.0"
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_settings_check_themselves_without_any_type_checker(tmp_path):
    """Half a frame of stride once gave one frame, without a word."""
    code = """
import numpy as np
from ttt3r import RunFolder, open_source, reconstruct
from ttt3r.errors import SettingError
from ttt3r.sources import Selection
images = [np.zeros((48, 64, 3), np.uint8)] * 3
wrong = [{"stride": 2.5}, {"stride": "2"}, {"stride": True}, {"start": "1"}, {"end": b"2"},
         {"fps": "30"}, {"fps": True}, {"video_stream": 1.5}, {"rotate": 90.0}, {"crop": 5}]
calls = [lambda s=s: open_source(images, **s) for s in wrong]
calls += [lambda: RunFolder(5), lambda: RunFolder("a", checkpoint_every=2.5),
          lambda: RunFolder("a", resume=1)]
calls += [lambda s=s: reconstruct(images, model="tiny-dpt", size=s) for s in (64.0, "64", True, 0)]
for number, call in enumerate(calls):
    try:
        print("taken:", number, call())
    except SettingError:
        pass
assert open_source(images, start=np.float64(0.05), fps=np.float32(20)).describe()["fps"] == 20.0
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@dataclass(frozen=True)
class Plain(values.Value):
    count: int
    share: float
    text: str = "a"
    flag: bool = False
    limit: int | None = None

    name: ClassVar[str] = "plain"


@dataclass(frozen=True)
class Holder(values.Value):
    held: Plain

    name: ClassVar[str] = "holder"


TOYS = values.Registry("toy", [Plain, Holder], default=Holder(Plain(1, 0.5)))
PLAIN = st.builds(
    Plain,
    count=st.integers(-(10**20), 10**20),
    share=st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
    text=st.text(st.characters(exclude_categories=["Cs"])),
    flag=st.booleans(),
    limit=st.none() | st.integers(),
)
RULES = st.recursive(
    st.sampled_from([Overwrite(), Ttt3r()]),
    lambda inner: st.builds(Damped, inner, st.floats(0, 1, exclude_min=True)),
    max_leaves=4,
)


@given(
    st.one_of(
        st.tuples(st.just(TOYS), PLAIN | st.builds(Holder, PLAIN)),
        st.tuples(st.just(rules.REGISTRY), RULES),
        st.tuples(st.just(resets.REGISTRY), st.builds(resets.Every, st.integers(2))),
        st.tuples(st.just(stitching.REGISTRY), st.builds(stitching.Similarity, st.integers(1))),
    )
)
def test_any_value_survives_its_text(pair):
    registry, value = pair
    assert registry.parse(values.to_text(value)) == value
    assert registry.parse(value) is value


ANYTHING = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(), st.just(Plain)
)


@given(st.data())
def test_wrong_types_are_always_a_setting_error(data):
    """From Python and as text alike, for each field of each class."""
    cls = data.draw(st.sampled_from([Plain, Holder]))
    right = data.draw(PLAIN) if cls is Plain else Holder(data.draw(PLAIN))
    field = data.draw(st.sampled_from([field.name for field in fields(cls)]))
    content = data.draw(ANYTHING)
    expected = get_type_hints(cls)[field]
    suits = type(content) is expected or (
        (field == "share" and type(content) is int)
        or (field == "limit" and type(content) in (int, type(None)))
    )
    given_ = {f.name: getattr(right, f.name) for f in fields(cls)} | {field: content}
    if suits and content not in (math.inf, -math.inf) and content == content:
        assert cls(**given_) == TOYS.parse(cls(**given_))
        return
    with pytest.raises(SettingError):
        cls(**given_)
    as_text = {
        key: values.to_text(item) if isinstance(item, Plain) else repr(item)
        for key, item in given_.items()
    }
    arguments = ", ".join(f"{key}={item}" for key, item in as_text.items())
    with pytest.raises(SettingError):
        TOYS.parse(f"{cls.name}({arguments})")


@given(st.text())
def test_any_text_is_read_or_refused(text):
    for registry in (TOYS, rules.REGISTRY, resets.REGISTRY, stitching.REGISTRY):
        try:
            registry.parse(text)
        except SettingError as error:
            assert str(error)
