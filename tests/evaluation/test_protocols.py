"""Names of protocols, and what they stand for."""

import pytest

from ttt3r.errors import SettingError
from ttt3r.evaluation import datasets, protocols
from ttt3r.evaluation.datasets.base import Selection
from ttt3r.evaluation.protocols import Protocol, parse


def test_a_name_carries_the_parameters():
    protocol = parse("pose", "tum-dynamics/stride3/90/corrected")
    assert protocol == Protocol("pose", "tum-dynamics", 3, 90, "corrected")
    assert protocol.selection == Selection("pose", 3, 90, "corrected")
    assert protocol.name == "tum-dynamics/stride3/90"
    assert protocol.full_name == "tum-dynamics/stride3/90/corrected"
    assert parse("recon", "7scenes/step2/200") == parse("recon", "7scenes/stride2/200")
    assert parse("depth", "sintel/stride1/all").frames is None


def test_names_and_values_correspond():
    for known in protocols.known():
        protocol = known.protocol
        assert parse(protocol.task, protocol.full_name) == protocol
        assert protocol.variant == "published"
        assert not known.lengths or known.lengths[-1] == protocol.frames
        assert list(known.lengths) == sorted(set(known.lengths))
        assert protocol.name in protocols.listing()


def test_the_published_curves():
    curves = {(k.protocol.task, k.protocol.name): k.lengths for k in protocols.known()}
    tum = (50, 100, 150, 200, 300, 400, 500, 600, 700, 800, 900, 1000)
    assert curves["pose", "tum-dynamics/stride1/1000"] == tum
    assert curves["pose", "scannet/stride3/1000"] == (50, 90, *tum[1:])
    assert curves["depth", "bonn/stride1/500"][:3] == (50, 100, 150)


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("pose", "", "names no protocol"),
        ("pose", "tum-dynamics", "tum-dynamics/stride1/1000"),  # the list of those there are
        ("pose", "tum-dynamics/stride1/-5", "names no protocol"),
        ("pose", "tum-dynamics/stride1/1000/wrong", "names no protocol"),
        ("pose", "tum-dynamics/stride0/10", "at least 1"),
        ("pose", "tum-dynamics/stride1/0", "at least 1"),
        ("pose", "nowhere/stride1/10", "no dataset 'nowhere'"),
        ("recon", "tum-dynamics/stride1/10", "cannot measure recon, only pose"),
    ],
)
def test_other_names_are_refused(task, name, message):
    with pytest.raises(SettingError, match=message):
        parse(task, name)


@pytest.mark.parametrize("name", datasets.DATASETS)
def test_every_dataset_can_be_named_and_describes_itself(name):
    data = datasets.named(name)
    assert data.name == name and data.title and data.tree and data.page and data.tasks
    for task in data.tasks:
        assert parse(task, f"{name}/stride1/10").data.name == name
