"""Every family takes its own rules and refuses those of the others, as text and as values."""

import pytest

from tests.rules.test_rules import EXAMPLES
from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.models.adapters import Once, as_stream
from ttt3r.models.point3r.memory import Append, Fuse
from ttt3r.models.registry import FAMILIES
from ttt3r.models.streamvggt.policies import Diverse, KeepAll, Window
from ttt3r.stream.clips import open_session
from ttt3r.stream.session import Session
from ttt3r.weights import CATALOGUE, load

TINY = {spec.family: spec.name for spec in CATALOGUE.values() if spec.random_config is not None}
WINDOWS = [KeepAll(), Window(3)]
OWN = {
    "cut3r": list(EXAMPLES.values()),
    "point3r": [Fuse(), Append()],
    "streamvggt": [*WINDOWS, Diverse(3)],
    "vggt": [*WINDOWS, Once()],
    "fast3r": [*WINDOWS, Once()],
}
EVERY = [*dict.fromkeys(rule for own in OWN.values() for rule in own), 5, 2.5, object()]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_takes_its_own_rules_only(family: str):
    model = load(TINY[family], "cpu")
    for rule in EVERY:
        forms = [rule, values.to_text(rule)] if hasattr(rule, "name") else [rule]
        for form in forms:
            if rule in OWN[family]:
                assert open_session(model, form).rule == rule
            else:
                with pytest.raises(SettingError, match="known names are"):
                    open_session(model, form)
                with pytest.raises(SettingError):
                    Session(model, form)


def test_a_stream_of_looks_refuses_to_look_once():
    with pytest.raises(SettingError, match="once"):
        as_stream(load(TINY["vggt"], "cpu")).parse_rule(Once())
