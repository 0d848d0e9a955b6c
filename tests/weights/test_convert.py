"""Converted weights equal their source, and appear complete or not at all."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from tests.weights.conftest import TINY_LINEAR, save, tiny_tensors
from ttt3r.errors import SettingError, WeightsError
from ttt3r.files import lock
from ttt3r.weights import convert, load
from ttt3r.weights.sources import file_sha256, read_weights


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_converted_weights_equal_their_source(
    dtype: str, tiny_dpt_pth: Path, tmp_path: Path
) -> None:
    folder = convert(tiny_dpt_pth, tmp_path / "deep" / "folder", dtype)
    expected = [".model.safetensors.sha256", "config.json", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == expected
    stored = getattr(torch, dtype)
    source, result = load(tiny_dpt_pth), load(folder)
    assert result.config == source.config
    assert result.preparation == source.preparation
    assert result.weights.name == source.weights.name
    assert result.weights.licence == source.weights.licence
    expected = source.state_dict()
    for key, tensor in result.state_dict().items():
        assert torch.equal(tensor, expected[key].to(stored).float()), key
    with safe_open(folder / "model.safetensors", "pt") as file:
        keys = set(file.keys())
        assert file.get_tensor("pose_token").dtype == stored
    assert not any("layer_rn" in key for key in keys)


def test_the_file_alone_and_the_folder_are_the_same(tiny_dpt_pth: Path, tmp_path: Path) -> None:
    folder = convert(tiny_dpt_pth, tmp_path)
    card = (folder / "config.json").read_text()
    (folder / "config.json").unlink()
    for source in (folder, folder / "model.safetensors"):
        assert load(source).config == load(tiny_dpt_pth).config
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata()["config"] == card


def test_converting_twice_changes_nothing(tiny_linear_pth: Path, tmp_path: Path) -> None:
    first = convert(tiny_linear_pth, tmp_path / "a")
    second = convert(first, tmp_path / "b")
    one, two = read_weights(first)[1], read_weights(second)[1]
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_the_description_says_where_it_comes_from(tiny_linear_pth: Path, tmp_path: Path) -> None:
    card = json.loads((convert(tiny_linear_pth, tmp_path) / "config.json").read_text())
    assert card["format"] == "ttt3r-weights"
    assert card["family"] == "cut3r"
    assert card["source"] == {"file": "linear.pth", "sha256": file_sha256(tiny_linear_pth)}
    assert card["converter"].startswith("ttt3r ")
    assert card["config"]["confidence_range"] == [1.0, "inf"]


def test_random_weights_convert_and_stay_untrained(tmp_path: Path) -> None:
    folder = convert("tiny-linear", tmp_path)
    assert not load(folder).weights.trained
    assert load(folder).weights.licence == "Apache-2.0"


def test_nothing_is_overwritten_unasked(tiny_linear_pth: Path, tmp_path: Path) -> None:
    folder = convert(tiny_linear_pth, tmp_path)
    before = (folder / "model.safetensors").read_bytes()
    with pytest.raises(WeightsError, match="exists already"):
        convert(tiny_linear_pth, folder, "float16")
    assert (folder / "model.safetensors").read_bytes() == before
    convert(tiny_linear_pth, folder, "float16", overwrite=True)
    assert len((folder / "model.safetensors").read_bytes()) < 0.6 * len(before)


def test_a_card_may_say_where_poses_come_from(tiny_linear_pth: Path, tmp_path: Path) -> None:
    folder = convert(tiny_linear_pth, tmp_path / "a")
    card = folder / "config.json"
    content = json.loads(card.read_text())
    assert "pose_from" not in content and load(folder).weights.pose_from is None
    card.write_text(json.dumps(content | {"pose_from": "auto"}))
    again = convert(folder, tmp_path / "b")
    assert json.loads((again / "config.json").read_text())["pose_from"] == "auto"
    assert load(again).weights.pose_from == "auto"
    for wrong in ("tail", 3, None):
        card.write_text(json.dumps(content | {"pose_from": wrong}))
        with pytest.raises(WeightsError, match=r"is damaged \(pose_from is"):
            load(folder)


def test_a_folder_can_be_converted_in_place(tiny_linear_pth: Path, tmp_path: Path) -> None:
    folder = convert(tiny_linear_pth, tmp_path)
    convert(folder, folder, "float16", overwrite=True)
    assert load(folder).config == load(tiny_linear_pth).config


def test_weights_that_do_not_fit_are_not_written(tmp_path: Path) -> None:
    tensors = tiny_tensors("tiny-linear")
    del tensors["enc_norm.bias"]
    path = save(tmp_path / "a.pth", tensors, TINY_LINEAR)
    with pytest.raises(WeightsError, match=r"1 missing: enc_norm\.bias"):
        convert(path, tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_values_too_large_for_half_precision_are_named(tmp_path: Path) -> None:
    tensors = tiny_tensors("tiny-linear")
    tensors["enc_norm.bias"][0] = 1e6
    path = save(tmp_path / "a.pth", tensors, TINY_LINEAR)
    with pytest.raises(WeightsError, match=r"enc_norm\.bias holds values too large for float16"):
        convert(path, tmp_path / "b", "float16")
    assert list((tmp_path / "b").iterdir()) == []


def test_a_full_disk_leaves_nothing_behind(
    tiny_linear_pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WeightsError, match=r"No space left on device\. Free some space"):
        convert(tiny_linear_pth, tmp_path / "b")
    assert list((tmp_path / "b").iterdir()) == []


def test_an_interrupted_conversion_is_gone_on_with(
    tiny_linear_pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part, whole = (tmp_path / "b" / f"model.safetensors{end}" for end in (".part", ""))
    expected = (convert(tiny_linear_pth, tmp_path / "a") / "model.safetensors").read_bytes()

    def stop_at(count: int) -> Callable[[int, int], None]:
        def update(done: int, total: int) -> None:
            assert total == 2 * len(expected)
            if done >= count:
                raise KeyboardInterrupt

        return update

    begun = len(expected) // 2
    for count in (begun, len(expected) + begun):  # while writing, while comparing
        with pytest.raises(KeyboardInterrupt):
            convert(tiny_linear_pth, tmp_path / "b", progress=stop_at(count))
        assert part.exists() and not whole.exists()
    told: list[int] = []
    convert(tiny_linear_pth, tmp_path / "b", progress=lambda done, total: told.append(done))
    assert whole.read_bytes() == expected and not part.exists()
    assert told[0] > len(expected), "all was written before"


@pytest.mark.parametrize("place", [0, 100, -1])
def test_a_part_of_something_else_is_written_anew(
    place: int, tiny_linear_pth: Path, tmp_path: Path
) -> None:
    expected = (convert(tiny_linear_pth, tmp_path / "a") / "model.safetensors").read_bytes()
    for content in (b"", b"nonsense" * 100, damaged(expected, place), expected + b"more"):
        target = tmp_path / "b" / "model.safetensors"
        target.parent.mkdir()
        target.with_name("model.safetensors.part").write_bytes(content)
        assert (convert(tiny_linear_pth, tmp_path / "b") / target.name).read_bytes() == expected
        shutil.rmtree(tmp_path / "b")


def damaged(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


def test_two_conversions_into_one_folder(tiny_linear_pth: Path, tmp_path: Path) -> None:
    held = lock(tmp_path / ".model.safetensors.lock")
    assert held is not None
    with held, pytest.raises(WeightsError, match="another program is writing"):
        convert(tiny_linear_pth, tmp_path)
    convert(tiny_linear_pth, tmp_path)


def test_a_target_that_cannot_be_a_folder_is_refused(tiny_linear_pth: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for target in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(WeightsError, match="cannot write to"):
            convert(tiny_linear_pth, target)


def test_a_name_that_cannot_be_read_back_is_refused(tiny_linear_pth: Path, tmp_path: Path) -> None:
    target = tmp_path / os.fsdecode(b"caf\xe9")
    with pytest.raises(WeightsError, match="not valid UTF-8"):
        convert(tiny_linear_pth, target)
    assert not target.exists()
    target.mkdir()
    (target / "model.safetensors").write_bytes(b"whatever")
    with pytest.raises(WeightsError, match=r"not valid UTF-8.*rename"):
        read_weights(target)


def test_an_unknown_type_is_refused(tiny_linear_pth: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="choose float32, bfloat16, float16"):
        convert(tiny_linear_pth, tmp_path, "int8")
