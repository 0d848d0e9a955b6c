"""A training of toy size learns, stops, goes on, and does the same whoever interrupts it."""

import json
import signal
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ttt3r
from tests.processes import started, wait_until
from tests.training.toy import Memory, recipe, trainer
from ttt3r.errors import InputError
from ttt3r.files import lock
from ttt3r.training.loop import CHECKPOINT, gradient_norms, starting_network
from ttt3r.training.pack import pack
from ttt3r.training.plot import plot, read_log
from ttt3r.training.team import Team, run_together
from ttt3r.training.validate import scaled_error, translation_error, validate

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, clips: Memory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    trainer(folder, clips).run()
    return folder


def test_the_loss_falls(trained: Path) -> None:
    log = read_log(trained / "log.jsonl")
    assert [record["step"] for record in log] == list(range(66))

    def mean(name: str, steps: slice) -> float:
        values = [record[name] for record in log[steps]]
        return sum(values) / len(values)

    for name, share in (("loss", 0.9), ("points", 0.95), ("descriptor", 0.8)):
        assert mean(name, slice(40, 60)) < share * mean(name, slice(0, 10)), name


@pytest.mark.parametrize("stop", [pytest.param(3, marks=pytest.mark.slow), 7])
def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, clips: Memory, stop: int
) -> None:
    """In the first stage, and in the second; bit for bit on one machine."""
    short = recipe(pairs=5, triplets=4)
    trainer(tmp_path / "whole", clips, short).run()
    trainer(tmp_path / "parts", clips, short).run(steps=stop)
    again = trainer(tmp_path / "parts", clips, short)
    assert again.progress.step == stop
    again.run()
    expected, actual = (load_file(tmp_path / name / CHECKPOINT) for name in ("whole", "parts"))
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


def test_a_training_survives_being_killed(tmp_path: Path) -> None:
    """SIGKILL at any moment leaves a checkpoint from which the training goes on."""
    program = (
        "import sys; from pathlib import Path; from tests.training.toy import Memory, trainer; "
        "trainer(Path(sys.argv[1]), Memory.render(5, 2, 4)).run(save_every=3)"
    )
    small = Memory.render(5, 2, 4)
    with started([sys.executable, "-c", program, str(tmp_path)], cwd=ROOT) as process:
        wait_until((tmp_path / CHECKPOINT).exists, process)
        process.send_signal(signal.SIGKILL)
    assert trainer(tmp_path, small).progress.step >= 3


def _two_steps(folder: Path, clips: Memory, team: Team) -> None:
    trainer(folder, clips, recipe(pairs=2, triplets=1), team).run(steps=2)


@pytest.mark.slow
def test_a_team_of_two_learns_from_both_shares(tmp_path: Path, clips: Memory) -> None:
    """Slow twin: one process that forms the mean of the gradients of both shares."""
    run_together(partial(_two_steps, tmp_path / "team", clips), 2)
    team = load_file(tmp_path / "team" / CHECKPOINT)

    class Twin:
        rank, size, other = 0, 1, None

        def mean(self, values: torch.Tensor) -> None:
            assert self.other is not None
            values.add_(self.other).div_(2)

        def share(self, values: torch.Tensor, owner: int) -> None: ...

        def collect(self, values: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
            return values

    twin = Twin()
    one = trainer(tmp_path / "twin", clips, recipe(pairs=2, triplets=1), twin)
    for step in range(2):
        twin.rank = 1
        twin.other = one.gradient(step, one.draw(step))[0]
        twin.rank = 0
        one.one_step(step, one.draw(step))
    for name, value in one.weights.items():
        torch.testing.assert_close(team[f"weight.{name}"], value, atol=1e-5, rtol=1e-4, msg=name)


def test_two_trainings_in_one_folder_and_damaged_checkpoints_are_refused(
    tmp_path: Path, clips: Memory
) -> None:
    one = trainer(tmp_path, clips)
    held = lock(tmp_path / "lock")
    assert held is not None
    with held, pytest.raises(InputError, match="another process"):
        one.run(steps=1)
    one.run(steps=1)
    one.checkpoint.write_bytes(one.checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        trainer(tmp_path, clips)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, clips: Memory) -> None:
    trainer(tmp_path, clips).run(steps=1)
    other = recipe()
    other = replace(other, network=replace(other.network, encoder_dim=128))
    with pytest.raises(InputError, match="another network"):
        trainer(tmp_path, clips, other)


def test_packed_weights_load_and_can_be_gone_on_from(trained: Path, tmp_path: Path) -> None:
    path = pack(recipe(), trained, tmp_path / "toy.safetensors")
    model = ttt3r.load(path)
    assert model.weights.trained and model.weights.licence == "Apache-2.0"
    checkpoint = load_file(trained / CHECKPOINT)
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint[f"average.{name}"].half().float()), name
    more = replace(recipe(), start=str(path))
    for name, value in starting_network(more).state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name
    smoother = replace(more, network=replace(more.network, smoothing=3))
    assert torch.equal(starting_network(smoother).pose_token, model.pose_token)
    with pytest.raises(InputError, match="another network"):
        starting_network(replace(more, start="builtin"))


def test_packing_calibrates_the_confidence_when_it_is_given_clips(
    trained: Path, tmp_path: Path, clips: Memory
) -> None:
    plain = load_file(pack(recipe(), trained, tmp_path / "plain.safetensors"))
    shifted = load_file(pack(recipe(), trained, tmp_path / "b.safetensors", clips=clips))
    changed = {name for name, value in plain.items() if not torch.equal(value, shifted[name])}
    assert changed and changed <= {f"downstream_head.{n}.fc2.bias" for n in ("proj", "cross_proj")}


def test_there_is_nothing_to_pack_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train first"):
        pack(recipe(), tmp_path, tmp_path / "toy.safetensors")


def test_validation_compares_with_what_costs_nothing(clips: Memory, trained: Path) -> None:
    figures = validate(trainer(trained, clips).averaged(), clips, frames=3, count=4)
    names = {f"{r}.{k}" for r in ("overwrite", "ttt3r") for k in ("depth", "rotation", "gate")}
    assert names < set(figures)
    assert figures["overwrite.gate"] == 1 and 0 < figures["ttt3r.gate"] < 1
    assert 0.1 < figures["ttt3r.depth"] < 2 and 0.1 < figures["ttt3r.rotation"] < 3


def test_scale_free_errors_are_zero_for_a_scaled_truth() -> None:
    truth = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)) + 1
    valid = truth > 1.1
    assert scaled_error(0.3 * truth, truth, valid) < 1e-6
    brute = min(
        float(((s * torch.ones_like(truth) - truth).abs() / truth)[valid].mean())
        for s in torch.linspace(0.5, 2.5, 400)
    )
    # The scale is that of the least |s d - d*|, which is close to the one of least AbsRel.
    assert brute - 1e-3 < scaled_error(torch.ones_like(truth), truth, valid) < 1.3 * brute
    path = torch.rand(5, 3, generator=torch.Generator().manual_seed(1))
    assert translation_error(0.2 * path, path) < 1e-6
    assert translation_error(torch.zeros(5, 3), path) == pytest.approx(1.0)


def test_norms_tell_which_part_moves_the_weights() -> None:
    weight = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    parts = {"a": 2 * weight.sum(), "b": weight.square().sum() / 2, "none": torch.zeros(())}
    norms = gradient_norms(parts, [weight])
    assert norms == pytest.approx({"a": 8**0.5, "b": 5.0, "none": 0.0})


def test_the_log_is_read_past_a_broken_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 0, "loss": 1.0}) + '\n{"step": 1, "lo')
    assert [record["step"] for record in read_log(path)] == [0]


def test_a_training_can_be_drawn(trained: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert plot(trained, tmp_path / "log.png").stat().st_size > 10_000
    with pytest.raises(InputError, match="train first"):
        plot(tmp_path, tmp_path / "none.png")
