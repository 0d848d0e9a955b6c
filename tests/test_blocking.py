"""What a pushed frame makes the program wait for, on a device that is pretended on the CPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import networks, vggt_networks
from tests.blocking import DEVICE, OnDevice, Pretended
from tests.models import test_fast3r, test_point3r
from tests.rules.test_rules import EXAMPLES
from ttt3r.models.base import Views
from ttt3r.rules.several import Several
from ttt3r.stream.session import Session

PUSHED = 3  # frames until a window of two has gone round


def frames(count: int, patch: int) -> Tensor:
    pixels = networks.random_images(count, 2 * patch, 3 * patch)
    return ((pixels + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


@pytest.mark.parametrize(
    ("kind", "action"),
    [
        ("read", lambda x: x.sum().item()),
        ("read", lambda x: bool((x > 0).any())),
        ("read", lambda x: x.tolist()),
        ("read", lambda x: x.cpu()),
        ("read", lambda x: x.numpy()),
        ("read", lambda x: x.nonzero()),
        ("read", lambda x: x[x > 0]),
        ("read", lambda x: torch.equal(x, x)),
        ("read", lambda x: x.repeat_interleave(torch.ones_like(x).long(), 0)),
        ("copy", lambda x: torch.ones(3).to(x.device)),
        ("copy", lambda x: torch.tensor([1.0, 2.0], device=x.device)),
        ("copy", lambda x: x.new_tensor([1.0, 2.0])),
        ("copy", lambda x: x[torch.tensor([0, 1])]),
        ("copy", lambda x: x.copy_(torch.ones(3))),
        ("send", lambda x: torch.ones(3).to(x.device, non_blocking=True)),
        (None, lambda x: torch.arange(3, device=x.device) + x),
        (None, lambda x: torch.full_like(x, 2.0).masked_fill(x > 0, 1.0).softmax(0)),
        (None, lambda x: x.new_zeros(2).double().to(x.device)),
    ],
)
def test_each_way_to_wait_is_seen(kind: str | None, action: Callable[[Tensor], Any]) -> None:
    pretended = Pretended()
    with pretended.active():
        x = torch.ones(3).to(DEVICE)
        assert isinstance(x, OnDevice)
        events = pretended.during(lambda: action(x))
    assert [event.kind for event in events] == [kind] * (kind is not None)
    assert len(pretended.events) == len(events)


def test_tensors_of_both_sides_do_not_mix() -> None:
    with Pretended().active():
        x = torch.ones(3).to(DEVICE)
        assert torch.equal((x + torch.tensor(1.0)).cpu(), torch.full((3,), 2.0))
        with pytest.raises(RuntimeError, match="both devices"):
            x + torch.ones(3)


# Network, its rule, and how often the program waits while a frame is pushed. Point3R asks how
# many pointers there are now, `diverse` how alike the frames are.
FAMILIES: dict[str, tuple[Callable[[], Any], str | None, int]] = {
    "cut3r": (lambda: networks.random_tiny("tiny_dpt"), None, 0),
    "point3r": (test_point3r.random_tiny, None, 1),
    "streamvggt": (lambda: vggt_networks.random_tiny("streamvggt"), "keep_all", 0),
    "streamvggt, window": (lambda: vggt_networks.random_tiny("streamvggt"), "window(2)", 0),
    "streamvggt, released": (
        lambda: vggt_networks.random_tiny("streamvggt", camera_cache="released"),
        "window(2)",
        0,
    ),
    "streamvggt, diverse": (lambda: vggt_networks.random_tiny("streamvggt"), "diverse(2)", 1),
    "vggt": (lambda: vggt_networks.random_tiny("vggt"), "window(2)", 0),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pushed_frame_waits_as_rarely_as_it_can(family: str) -> None:
    """Results stay on the device; the CPU computes the same with its own kernels."""
    build, rule, most = FAMILIES[family]
    plain, pretended = build(), Pretended()
    outputs = ("points", "pose", "world")
    images = frames(PUSHED + 1, plain.preparation.patch)
    with pretended.active():
        session = Session(pretended.network(plain), rule, None, outputs, device_of_results="model")
        for image in images[:PUSHED]:
            session.push(image)
        last: list[Any] = []
        waits = pretended.waits(lambda: last.append(session.push(images[-1])))
        assert len(waits) == most, waits
        assert {tensor.device for tensor in last[0].tensors().values()} == {DEVICE}
        found = last[0].to("cpu")
    reference = Session(plain, rule, None, outputs)
    expected = [reference.push(image) for image in images][-1]
    for name, tensor in expected.tensors().items():
        # Other kernels: sums in another order, some hundreds of float32 eps after five frames.
        torch.testing.assert_close(getattr(found, name), tensor, rtol=1e-3, atol=1e-4)


def test_no_update_rule_waits() -> None:
    rule, pretended = Several(tuple(EXAMPLES.values())), Pretended()
    images = networks.random_images(3, 32, 48)[:, None].expand(-1, len(rule.rules), -1, -1, -1)
    with pretended.active():
        network = pretended.network(networks.random_tiny("tiny_linear"))
        states = [network.initial_state(rule, len(rule.rules))]

        def step(image: Tensor) -> None:
            tokens = network.encode(Views(image))
            states.append(network.step(states[-1], tokens, rule)[0])

        for image in images.to(DEVICE):
            waits = pretended.waits(partial(step, image))
    assert not waits, waits


def test_results_on_the_cpu_are_fetched_together_at_the_end() -> None:
    pretended = Pretended()
    images = frames(3, 16)
    with pretended.active():
        session = Session(pretended.network(networks.random_tiny("tiny_linear")))
        for image in images[:2]:
            session.push(image)
        last: list[Any] = []
        events = pretended.during(lambda: last.append(session.push(images[2])))
    reads = [event for event in events if event.kind == "read"]
    assert len(reads) == len(last[0].tensors()) and {e.place for e in reads} == {reads[0].place}
    assert events[-len(reads) :] == reads and not [e for e in events if e.kind == "copy"]


def test_sets_of_views_are_fetched_once_for_each_view() -> None:
    """Fast3R's poses are found on the CPU: three reads a view, and one for the scale of points."""
    pretended, images = Pretended(), networks.random_images(2, 32, 48)[None]
    with pretended.active():
        network = pretended.network(test_fast3r.network())
        here = images.to(DEVICE)
        waits = pretended.waits(lambda: network.predict(here))
    assert len([event for event in waits if event.kind == "read"]) <= 4 * images.shape[1], waits


def test_sessions_go_on_where_they_are(tmp_path) -> None:
    """Segments, forks and saved sessions mix nothing of both sides."""
    pretended, images = Pretended(), frames(4, 16)
    with pretended.active():
        network = pretended.network(networks.random_tiny("tiny_linear"))
        session = Session(network, "memix", "every(2, overlap=2)", stitch="similarity")
        session.push(images[0])
        session.save(tmp_path / "session")
        resumed, fork = Session.load(tmp_path / "session", network), session.fork()
        assert resumed.state.tokens.device == DEVICE and resumed.state.age.device.type == "cpu"
        for image in images[1:]:
            expected = session.push(image)
            assert torch.equal(resumed.push(image).points, expected.points)
        assert fork.push(images[1]).points.isfinite().all()
