"""A training of toy size learns, stops, goes on, and does the same whoever interrupts it."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import ttt3r
from tests.training.toy import recipe, trainer
from ttt3r.errors import InputError
from ttt3r.training.pack import pack
from ttt3r.training.plot import read_log
from ttt3r.training.validate import validate


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, cache: Path) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    trainer(folder, cache).run()
    return folder


def test_the_loss_falls_over_the_first_200_steps(trained: Path) -> None:
    log = read_log(trained / "log.jsonl")
    assert [record["step"] for record in log] == list(range(230))

    def mean(name: str, steps: slice) -> float:
        values = [record[name] for record in log[steps]]
        return sum(values) / len(values)

    for name, share in (("loss", 0.8), ("points", 0.85), ("matching", 0.9)):
        assert mean(name, slice(180, 200)) < share * mean(name, slice(0, 20)), name
    assert mean("rgb", slice(220, 230)) < mean("rgb", slice(200, 205))


def test_an_interrupted_training_ends_with_the_same_weights(
    tmp_path: Path, cache: Path, trained: Path
) -> None:
    trainer(tmp_path, cache).run(steps=210)
    again = trainer(tmp_path, cache)
    assert again.progress.step == 210
    again.run()
    expected, actual = (load_file(f / "checkpoint.safetensors") for f in (trained, tmp_path))
    assert expected.keys() == actual.keys()
    for name, value in expected.items():
        assert torch.equal(value, actual[name]), name


def test_a_training_survives_being_killed(tmp_path: Path, cache: Path) -> None:
    """SIGKILL at any moment leaves a checkpoint from which the training goes on."""
    program = (
        "import sys; from pathlib import Path; from tests.training.toy import trainer; "
        "trainer(Path(sys.argv[1]), Path(sys.argv[2])).run(save_every=3)"
    )
    command = [sys.executable, "-c", program, str(tmp_path), str(cache)]
    root = Path(__file__).resolve().parents[2]
    for _ in range(2):
        before = trainer(tmp_path, cache).progress.step
        process = subprocess.Popen(command, cwd=root)
        log, deadline = tmp_path / "log.jsonl", time.monotonic() + 60
        while time.monotonic() < deadline:
            if log.exists() and read_log(log)[-1]["step"] >= before + 4:
                break
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert trainer(tmp_path, cache).progress.step >= before + 3


def test_workers_share_a_batch_and_do_the_same(tmp_path: Path, cache: Path) -> None:
    """Slow twin: one worker. Averages over halves differ a little where masks differ."""
    one, two = (trainer(tmp_path / str(n), cache, workers=n) for n in (1, 2))
    for step in range(3):
        batch = one.draw(one.stage_at(step)[0], torch.Generator().manual_seed(step))
        first, second = one.one_step(step, batch), two.one_step(step, batch)
        assert second == pytest.approx(first, rel=0.05)


def test_two_trainings_in_one_folder_and_damaged_checkpoints_are_refused(
    tmp_path: Path, cache: Path
) -> None:
    from ttt3r.files import lock

    one = trainer(tmp_path, cache)
    held = lock(tmp_path / "lock")
    assert held is not None
    with held, pytest.raises(InputError, match="another process"):
        one.run(steps=1)
    one.run(steps=1)
    one.checkpoint.write_bytes(one.checkpoint.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        trainer(tmp_path, cache)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path, cache: Path) -> None:
    from dataclasses import replace

    trainer(tmp_path, cache).run(steps=1)
    other = recipe()
    other = replace(other, network=replace(other.network, encoder_dim=64))
    with pytest.raises(InputError, match="another network"):
        trainer(tmp_path, cache, other)


def test_packed_weights_load_and_are_the_averaged_ones(trained: Path, tmp_path: Path) -> None:
    path = pack(recipe(), trained, tmp_path / "toy.safetensors")
    model = ttt3r.load(path)
    assert model.weights.trained and model.weights.licence == "Apache-2.0"
    checkpoint = load_file(trained / "checkpoint.safetensors")
    for name, value in model.state_dict().items():
        assert torch.equal(value, checkpoint[f"average.{name}"].half().float()), name


def test_there_is_nothing_to_pack_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train first"):
        pack(recipe(), tmp_path, tmp_path / "toy.safetensors")


def test_validation_reports_ratios_to_a_static_camera(cache: Path, trained: Path) -> None:
    some = trainer(trained, cache)
    clips = some.draw.validation()  # pyright: ignore[reportFunctionMemberAccess]
    for task in ("pairs", "clips"):
        figures = validate(some.averaged(), clips, task, (32, 48), frames=2)
        assert set(figures) == {"rotation", "translation", "depth", "metric", "world"}
        assert 0.2 < figures["rotation"] < 3 and 0 < figures["depth"] < 2


def test_the_log_is_read_past_a_broken_last_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps({"step": 0, "loss": 1.0}) + '\n{"step": 1, "lo')
    assert [record["step"] for record in read_log(path)] == [0]


def test_validation_shows_as_many_frames_as_a_stage_does(cache: Path, trained: Path) -> None:
    """The last stage of a recipe takes whole clips, which leaves no room between the frames."""
    some = trainer(trained, cache)
    clips = some.draw.validation()  # pyright: ignore[reportFunctionMemberAccess]
    assert validate(some.averaged(), clips, "clips", (32, 48), frames=clips.length)
