"""From a name or a path to a network."""

import json
import logging
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.weights.conftest import TINY_LINEAR, constructor, save, tiny_tensors, with_hash
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.base import Views
from ttt3r.models.cut3r.network import Cut3r
from ttt3r.rules import parse
from ttt3r.types import Preparation
from ttt3r.weights import (
    CATALOGUE,
    choose_device,
    choose_precision,
    convert,
    licence_notice,
    load,
    loading,
    weights_folder,
)
from ttt3r.weights.catalogue import find_on_disk
from ttt3r.weights.sources import file_sha256


def same_weights(a: Cut3r, b: Cut3r) -> bool:
    one, other = a.state_dict(), b.state_dict()
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("name", ["tiny-dpt", "tiny-linear"])
def test_random_weights_load_and_give_finite_varying_output(name: str) -> None:
    network = load(name)
    spec = CATALOGUE[name]
    assert network.weights.name == name
    assert not network.weights.trained
    assert len(network.weights.sha256) == 64
    assert network.preparation.size == spec.image_size
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())
    rule = parse("ttt3r")
    state = network.initial_state(rule)
    for value in (-0.5, 0.5):
        image = torch.full((1, 3, 48, 64), value)
        image[..., ::5, :] *= -1
        tokens = network.encode(Views(image=image))
        state, output = network.step(state, tokens, rule, ("points", "pose", "world", "rgb"))
        fields = (output.points, output.confidence, output.world_points, output.rgb)
        for field in (*fields, output.pose_encoding):
            assert field is not None
            assert field.isfinite().all()
            assert field.std() > 1e-4
        assert output.points is not None
        assert output.pose_encoding is not None
        assert 0.5 < output.points[..., 2].median() < 8
        assert output.pose_encoding[0, :3].norm() < 0.5


def test_upstream_checkpoints_load(tiny_linear_pth: Path, tiny_dpt_pth: Path) -> None:
    for path, name in ((tiny_linear_pth, "tiny-linear"), (tiny_dpt_pth, "tiny-dpt")):
        network = load(path)
        assert same_weights(network, load(name))
        assert network.weights.name == path.stem
        assert network.weights.licence == "unknown"
        assert network.weights.trained
        assert network.weights.sha256 == file_sha256(path)
        assert network.preparation == Preparation(size=64, patch=16)


def test_a_path_may_be_text(tiny_linear_pth: Path) -> None:
    assert same_weights(load(str(tiny_linear_pth)), load("tiny-linear"))


def test_a_file_with_a_description_beside_it_loads(tiny_dpt_pth: Path, tmp_path: Path) -> None:
    folder = convert(tiny_dpt_pth, tmp_path / "weights")
    bare = tmp_path / "bare"
    bare.mkdir()
    save_file(tiny_tensors("tiny-dpt"), bare / "a.safetensors")
    shutil.copy(folder / "config.json", bare)
    assert same_weights(load(bare / "a.safetensors"), load("tiny-dpt"))


def test_a_foreign_description_is_not_believed(tmp_path: Path) -> None:
    save_file(tiny_tensors("tiny-dpt"), tmp_path / "a.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["Other"]}))
    # Without a description the released head counts are tried, which do not suit this network.
    with pytest.raises(WeightsError, match="cannot be split into 12 decoder heads"):
        load(tmp_path / "a.safetensors")


def test_damaged_safetensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_file(tiny_tensors("tiny-linear"), path)
    whole = path.read_bytes()
    for length in (0, 4, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(WeightsError, match="Download it again"):
            load(path)
    path.write_text("no weights at all, only some text")
    with pytest.raises(WeightsError, match="not a complete safetensors file"):
        load(path)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"format": "other"}, "not a description of ttt3r weights"),
        ({"format_version": 2}, "Upgrade ttt3r"),
        ({"family": "vggt"}, "describes 'vggt' weights"),
        ({"family": "other"}, "describes 'other' weights in format 1, but .* reads cut3r, vggt"),
        ({"family": ["cut3r"]}, "Upgrade ttt3r"),
        ({"config": {"unknown_field": 1}}, "unknown fields: unknown_field"),
        ({"config": {"encoder_dim": 2**70}}, "not an integer from 1 to"),
        ({"config": {}}, "encoder_depth is 24 by the configuration but 2 by the tensors"),
        ({"config": None}, "damaged"),
        ({"image_policy": {"size": 64}}, None),
        ({"image_policy": {"size": "64"}}, "damaged"),
        ({"image_policy": {"size": 8}}, "damaged"),
        ({"image_policy": {"sides": 1}}, "damaged"),
        ({"licence": None}, "damaged"),
        ({"source": {}}, "damaged"),
    ],
)
def test_descriptions_are_checked(
    change: dict[str, object], match: str | None, tiny_linear_pth: Path, tmp_path: Path
) -> None:
    folder = convert(tiny_linear_pth, tmp_path)
    card = folder / "config.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    if match is None:
        load(folder)
        return
    with pytest.raises(WeightsError, match=match):
        load(folder)


def test_unreadable_descriptions_are_refused(tiny_linear_pth: Path, tmp_path: Path) -> None:
    folder = convert(tiny_linear_pth, tmp_path)
    for content in (b"", b"[" * 100_000, b"\xff\xfe", b"[]"):
        (folder / "config.json").write_bytes(content)
        with pytest.raises(WeightsError, match=r"[Cc]onvert the weights|ttt3r convert"):
            load(folder)


@pytest.mark.parametrize("source", ["", "nonsense", "some/where.pth", Path("nowhere")])
def test_unknown_sources_name_the_known_ones(source: str | Path) -> None:
    with pytest.raises(WeightsError, match=r"neither a file or folder nor a known name.*builtin"):
        load(source)


def test_a_folder_without_weights_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no model\.safetensors"):
        load(tmp_path)


def test_weights_that_are_not_there_say_how_to_get_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    with pytest.raises(WeightsError) as caught:
        load("cut3r_512_dpt_4_64")
    assert str(caught.value) == (
        "the weights cut3r_512_dpt_4_64 are not on this machine.\n"
        "  Publisher: https://github.com/CUT3R/CUT3R (cut3r_512_dpt_4_64.pth)\n"
        "  Licence:   CC-BY-NC-SA-4.0, no commercial use\n"
        "  Size:      3.2 GB\n"
        "Get them with:\n"
        "  ttt3r fetch cut3r_512_dpt_4_64\n"
        f"or put what you have downloaded yourself into {tmp_path}/cut3r_512_dpt_4_64/original"
    )


def test_the_weights_folder_is_in_the_users_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TTT3R_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", "/elsewhere")
    assert weights_folder() == Path("/elsewhere/ttt3r/weights")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert weights_folder() == Path.home() / ".cache" / "ttt3r" / "weights"


def test_names_find_files_in_the_weights_folder(
    tiny_linear_pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path))
    name = "cut3r_224_linear_4"
    with_hash(monkeypatch, name, None)
    published = tmp_path / f"{name}.pth"
    shutil.copy(tiny_linear_pth, published)
    network = load(name)
    assert network.weights.licence == "CC-BY-NC-SA-4.0"
    assert "CUT3R" in network.weights.origin
    convert(published, tmp_path / name)
    published.unlink()
    converted = load(name)
    assert same_weights(network, converted)
    assert converted.weights.licence == "CC-BY-NC-SA-4.0"
    assert converted.weights.name == name


def test_known_checksums_are_checked(
    tiny_linear_pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "cut3r_224_linear_4"
    path = tmp_path / f"{name}.pth"
    shutil.copy(tiny_linear_pth, path)
    with pytest.raises(WeightsError, match="is not the published file: its SHA-256 is"):
        load(path)
    renamed = load(path.rename(tmp_path / "mine.pth"))
    assert (renamed.weights.name, renamed.weights.licence) == ("mine", "unknown")
    # A published file is recognised whatever it is called.
    with_hash(monkeypatch, name, file_sha256(tiny_linear_pth))
    known = load(tmp_path / "mine.pth").weights
    assert (known.name, known.licence) == (name, "CC-BY-NC-SA-4.0")


def test_a_constructor_that_contradicts_the_file_is_refused(tmp_path: Path) -> None:
    path = save(
        tmp_path / "a.pth",
        tiny_tensors("tiny-linear"),
        TINY_LINEAR.replace("local_mem_size=16", "local_mem_size=256"),
    )
    with pytest.raises(WeightsError, match="memory_size is 256 by the constructor call but 16"):
        load(path)


def test_hostile_constructors_are_not_evaluated(tmp_path: Path) -> None:
    marker = tmp_path / "executed"
    text = constructor(f"a=__import__('pathlib').Path({str(marker)!r}).touch()")
    path = save(tmp_path / "a.pth", tiny_tensors("tiny-linear"), text)
    with pytest.raises(WeightsError, match="cannot be read"):
        load(path)
    assert not marker.exists()


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device(torch.device("cpu")) == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device("auto").type == expected
    for device in ("nonsense", "cuda:99", "cpu:1", "meta", ""):
        with pytest.raises(SettingError, match="device"):
            load("tiny-linear", device=device)


def test_precisions() -> None:
    cpu = torch.device("cpu")
    assert choose_precision("auto", cpu) == torch.float32
    for name in ("float32", "bfloat16", "float16"):
        assert choose_precision(name, cpu) == getattr(torch, name)
    with pytest.raises(SettingError, match="choose auto, float32, bfloat16, float16"):
        load("tiny-linear", precision="bf16")
    network = load("tiny-linear", device="cpu", precision="bfloat16")
    assert network.dec_blocks[0].attn.qkv.weight.dtype == torch.bfloat16
    assert network.pose_token.dtype == torch.float32
    assert network.downstream_head.proj.fc1.weight.dtype == torch.float32


@pytest.mark.gpu
def test_the_gpu_is_chosen_by_itself() -> None:
    network = load("tiny-linear")
    assert network.device.type == "cuda"
    assert network.dec_blocks[0].attn.qkv.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_is_loaded_directly(precision: str, tiny_linear_pth: Path) -> None:
    """The same weights as lowering the precision afterwards, with none left in the file."""
    loaded = load(tiny_linear_pth, "cpu", precision)
    later = load(tiny_linear_pth, "cpu").set_precision(getattr(torch, precision))
    expected = later.state_dict()
    for key, tensor in loaded.state_dict().items():
        assert tensor.dtype == expected[key].dtype and torch.equal(tensor, expected[key]), key
    assert {p.dtype for p in loaded.downstream_head.parameters()} == {torch.float32}


def test_the_licence_is_logged_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, tiny_linear_pth: Path
) -> None:
    monkeypatch.setattr(loading, "_announced", set())
    with caplog.at_level(logging.INFO, "ttt3r.weights"):
        for _ in range(3):
            load("tiny-linear")
            load(tiny_linear_pth)
    assert [record.levelno for record in caplog.records] == [logging.WARNING, logging.WARNING]
    assert "random, not trained: the output is not a reconstruction" in caplog.messages[0]
    assert "the licence is not stated" in caplog.messages[1]


def test_the_notice_names_restrictions() -> None:
    info = CATALOGUE["cut3r_512_dpt_4_64"].info("0" * 64)
    assert licence_notice(info) == (
        "weights cut3r_512_dpt_4_64 by https://github.com/CUT3R/CUT3R: licence CC-BY-NC-SA-4.0, "
        "no commercial use."
    )


@pytest.mark.parametrize("name", CATALOGUE)
def test_catalogue_entries_are_complete(name: str) -> None:
    spec = CATALOGUE[name]
    assert spec.name == name
    assert spec.title.endswith(".")
    origins = [spec.files, spec.random_config, spec.packaged]
    assert sum(map(bool, origins)) == 1
    assert spec.trained == (spec.random_config is None)


def test_the_built_in_weights_are_in_the_package_small_and_free() -> None:
    path = find_on_disk(CATALOGUE["builtin"])
    assert path is not None and path.stat().st_size < 30e6
    network = load("builtin")
    assert network.weights.trained and network.weights.licence == "Apache-2.0"
    assert sum(parameter.numel() for parameter in network.parameters()) < 15e6


def test_packaged_weights_that_are_gone_ask_for_a_new_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ttt3r.weights.catalogue.PACKAGED", tmp_path)
    with pytest.raises(WeightsError, match="install ttt3r again"):
        load("builtin")
