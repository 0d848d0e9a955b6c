"""From a name to weights that are ready, and what can go wrong on the way."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import ttt3r
from tests.weights.fetching.publisher import like_the_drive, like_the_hub, publish, published
from tests.weights.fetching.servers import Server, page, serving
from tests.weights.published import assert_same, save_fast3r
from ttt3r.errors import SettingError, WeightsError
from ttt3r.models.fast3r.config import TINY as TINY_FAST3R
from ttt3r.weights import CATALOGUE, load
from ttt3r.weights.catalogue import WeightsSpec, find_on_disk
from ttt3r.weights.fetching import drive, obtain, remove, stock, verify
from ttt3r.weights.fetching.consent import has_agreed, note_path
from ttt3r.weights.hashes import file_sha256, remembered
from ttt3r.weights.random import random_weights

NAME = "cut3r_224_linear_4"


def fetch(name: str = NAME, **options) -> Path:
    return ttt3r.fetch(name, accept_licence=True, **options)


@pytest.fixture
def content(tiny_linear_pth: Path) -> bytes:
    return tiny_linear_pth.read_bytes()


@pytest.fixture
def spec(server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch) -> WeightsSpec:
    """Small weights under a released name, at an address."""
    server.files["/file"] = content
    file = replace(published(f"{NAME}.pth", content), places=(server.url(),))
    return publish(monkeypatch, NAME, file)


def names(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_fetch_converts_and_remembers(
    spec: WeightsSpec, server: Server, tiny_linear_pth: Path, weights: Path
) -> None:
    told: list[tuple[str, int, int | None]] = []
    folder = fetch(progress=lambda *step: told.append(step))
    assert folder == weights / NAME == find_on_disk(spec)
    network = load(NAME)
    assert_same(network, load(tiny_linear_pth))
    assert (network.weights.name, network.weights.licence) == (NAME, "CC-BY-NC-SA-4.0")
    card = json.loads((folder / "config.json").read_text())
    assert card["source"] == {"file": f"{NAME}.pth", "sha256": spec.files[0].sha256}
    visible = ["config.json", "consent.json", "model.safetensors"]
    hidden = [".lock", ".model.safetensors.sha256"]
    assert names(folder) == hidden + visible, "the published file was removed"
    assert remembered(folder / "model.safetensors") == network.weights.sha256
    assert {label for label, *_ in told} == {f"fetching {NAME}.pth", "converting"}
    assert told[-1][1] == told[-1][2]

    assert fetch() == folder and len(server.requests) == 1, "a second time costs nothing"


def test_half_and_keep(spec: WeightsSpec, weights: Path, content: bytes) -> None:
    folder = fetch(half=True, keep=True)
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.get_tensor("pose_token").dtype == torch.bfloat16
    assert (folder / "original" / f"{NAME}.pth").read_bytes() == content
    assert find_on_disk(spec) == folder


def dtypes(path: Path) -> set[torch.dtype]:
    with safe_open(path, "pt") as file:
        return {file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118


@pytest.mark.parametrize("keep", [False, True])
def test_half_of_weights_that_are_here(
    keep: bool, spec: WeightsSpec, server: Server, tiny_linear_pth: Path
) -> None:
    """Converted weights are stored anew; nothing is downloaded again, what was kept stays."""
    folder = fetch(keep=keep)
    path, kept = folder / "model.safetensors", names(folder)
    assert dtypes(path) == {torch.float32}
    assert fetch(half=True) == folder and dtypes(path) == {torch.bfloat16}
    assert names(folder) == kept
    network, whole = load(NAME, "cpu"), load(tiny_linear_pth, "cpu").state_dict()
    assert (
        network.weights.sha256 == remembered(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    )
    for name, tensor in network.state_dict().items():
        assert torch.equal(tensor.float(), whole[name].bfloat16().float()), name
    assert json.loads((folder / "config.json").read_text())["licence"] == spec.licence
    assert len(server.requests) == 1


def test_what_is_half_already_is_left_alone(
    spec: WeightsSpec, caplog: pytest.LogCaptureFixture
) -> None:
    path = fetch(half=True) / "model.safetensors"
    before = path.stat()
    with caplog.at_level("INFO", "ttt3r.weights"):
        fetch(half=True)
        assert "as bfloat16" not in caplog.text
        fetch()
    assert f"as bfloat16. For float32: ttt3r models --remove {NAME}" in caplog.text
    assert path.stat().st_mtime_ns == before.st_mtime_ns and path.stat().st_ino == before.st_ino


def test_an_interrupted_half_leaves_the_whole(spec: WeightsSpec, tiny_linear_pth: Path) -> None:
    folder = fetch()

    def stop(label: str, done: int, total: int | None) -> None:
        if total and done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(half=True, progress=stop)
    assert dtypes(folder / "model.safetensors") == {torch.float32}
    assert_same(load(NAME), load(tiny_linear_pth))
    fetch(half=True)
    assert dtypes(folder / "model.safetensors") == {torch.bfloat16}
    assert "model.safetensors.part" not in names(folder)


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_half_of_a_file_that_the_user_put_there(
    ending: str, spec: WeightsSpec, server: Server, content: bytes, weights: Path
) -> None:
    """It is converted into a folder, and stays."""
    own = weights / f"{NAME}{ending}"
    if ending == ".pth":
        weights.mkdir()
        own.write_bytes(content)
    else:
        (fetch() / "model.safetensors").rename(own)
        shutil.rmtree(weights / NAME)
    before = own.read_bytes()
    assert fetch() == own
    folder = fetch(half=True)
    assert folder == find_on_disk(spec) == weights / NAME
    assert dtypes(folder / "model.safetensors") == {torch.bfloat16}
    assert own.read_bytes() == before


def test_a_family_stands_for_its_released_weights(spec: WeightsSpec) -> None:
    assert obtain.published("cut3r").name == "cut3r_512_dpt_4_64"
    assert obtain.published(NAME) is spec


@pytest.mark.parametrize("name", ["nonsense", "tiny-dpt", "builtin", ""])
def test_what_cannot_be_fetched(name: str, weights: Path) -> None:
    with pytest.raises(SettingError, match=r"no published weights|need no fetching"):
        fetch(name)
    assert not weights.exists()


def test_two_files_from_the_hub(
    server: Server, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of Fast3R: tensors and their description."""
    name, base = "fast3r_vit_large_512", "/owner/name/resolve/abc/"
    source = save_fast3r(tmp_path / "source", random_weights(TINY_FAST3R))
    files = {p.name: p.read_bytes() for p in source.iterdir()}
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    publish(
        monkeypatch,
        name,
        *(
            replace(published(n, files[n]), places=(f"hub:owner/name@abc/{n}",))
            for n in ("model.safetensors", "config.json")
        ),
    )
    with serving() as store:
        like_the_hub(server, store, {base + n: held for n, held in files.items()})
        server.scripts = [page("busy")]
        with pytest.raises(WeightsError, match=r"no place gave model\.safetensors"):
            fetch(name)
        fetch(name)
    assert_same(load(name, "cpu"), load(source, "cpu"))
    assert load(name).weights.licence == "FAIR Noncommercial Research License"


def test_one_file_of_two_is_not_taken_for_the_weights(
    server: Server, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "fast3r_vit_large_512"
    source = save_fast3r(tmp_path / "source", random_weights(TINY_FAST3R))
    files = {p.name: p.read_bytes() for p in source.iterdir()}
    server.files["/model.safetensors"] = files["model.safetensors"]
    spec = publish(
        monkeypatch,
        name,
        *(
            replace(published(n, files[n]), places=(server.url(f"/{n}"),))
            for n in ("model.safetensors", "config.json")
        ),
    )
    with pytest.raises(WeightsError, match=r"no place gave config\.json"):
        fetch(name)
    assert find_on_disk(spec) is None and stock(spec).state == "partly"
    with pytest.raises(WeightsError, match="not on this machine"):
        load(name)
    server.files["/config.json"] = files["config.json"]
    fetch(name)
    assert [r.path for r in server.requests].count("/model.safetensors") == 1


def test_places_are_tried_in_order(
    server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drive, "DRIVE", server.address)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    like_the_drive(server, {"good": content})
    server.files["/other"] = b"x" * len(content)
    places = ("drive:bad", "hub:a/b@c/d", server.url("/other"), "drive:good")
    publish(monkeypatch, NAME, replace(published("w.pth", content), places=places))
    fetch()
    asked = [request.path.partition("?")[0] for request in server.requests]
    assert asked == ["/uc", "/a/b/resolve/c/d", "/other", "/uc", "/page", "/download"]


def test_all_refusals_are_told(
    server: Server, content: bytes, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    places = ("hub:a/b@c/d", server.url("/gone"))
    publish(monkeypatch, NAME, replace(published("w.pth", content), places=places))
    with pytest.raises(WeightsError) as caught:
        fetch()
    text = str(caught.value)
    assert "a/b has no file d" in text and "status 404" in text and server.url("/gone") in text
    assert f"save it as {weights / NAME / 'original' / 'w.pth'} and run" in text
    # And so it works.
    (weights / NAME / "original" / "w.pth").write_bytes(content)
    fetch()


def test_another_place_goes_on_with_the_part(
    spec: WeightsSpec, server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.files["/copy"] = content
    file = replace(spec.files[0], places=(server.url(), server.url("/copy")))
    publish(monkeypatch, NAME, file)
    server.cuts = [5000]
    gone = lambda handler, request: handler.reply(404)  # noqa: E731
    server.scripts = [lambda handler, request: handler.give(request), gone]
    fetch()
    assert server.requests[-1].path == "/copy" and server.requests[-1].begin == 5000


def test_a_wrong_hash_and_how_to_take_the_file_all_the_same(
    spec: WeightsSpec, server: Server, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(monkeypatch, NAME, replace(spec.files[0], sha256="0" * 64))
    with pytest.raises(WeightsError, match=r"SHA-256 is .*, but 0000"):
        fetch()
    with pytest.raises(WeightsError, match="not on this machine"):
        load(NAME)
    digest = str(spec.files[0].sha256)
    with pytest.raises(SettingError, match="not a SHA-256"):
        fetch(sha256="abc")
    with pytest.raises(WeightsError, match="SHA-256"):
        fetch(sha256="1" * 64)
    fetch(sha256=digest.upper(), keep=True)
    assert load(NAME).weights.trained
    shutil.rmtree(spec.folder)
    fetch(sha256="any")
    assert load(NAME).weights.trained


def test_a_file_that_the_user_put_there_is_checked(
    spec: WeightsSpec, server: Server, content: bytes
) -> None:
    spec.originals.mkdir(parents=True)
    target = spec.originals / f"{NAME}.pth"
    target.write_bytes(content + b"!")
    with pytest.raises(WeightsError, match=r"(?s)not the published file.*--sha256"):
        fetch()
    with pytest.raises(WeightsError, match="is not the published file"):
        load(NAME)
    target.write_bytes(content)
    assert load(NAME).weights.name == NAME
    fetch()
    assert server.requests == []


def test_an_unknown_hash_is_written_down(
    spec: WeightsSpec,
    content: bytes,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    publish(monkeypatch, NAME, replace(spec.files[0], sha256=None, size=None))
    with caplog.at_level("INFO", "ttt3r.weights"):
        folder = fetch()
    digest = hashlib.sha256(content).hexdigest()
    assert f"that of this copy is written down beside it: {digest}" in caplog.text
    assert json.loads((folder / "config.json").read_text())["source"]["sha256"] == digest


def test_the_catalogue_of_published_files() -> None:
    """Every file can be had somewhere, in a way that is known."""
    from ttt3r.weights.fetching.places import Place

    for spec in CATALOGUE.values():
        assert bool(spec.files) == bool(spec.licence_url)
        for file in (*spec.files, *spec.also):
            assert file.places
            for place in map(Place, file.places):
                assert place.url.startswith(("https://huggingface.co/", "https://drive.google"))
                assert place.hub_file is None or place.hub_file[2].endswith(file.name)
            assert file.sha256 is None or len(file.sha256) == 64
    assert CATALOGUE["cut3r_512_dpt_4_64"].download_size == 3_173_761_006


# Consent --------------------------------------------------------------------------------------


def test_without_consent_nothing_is_fetched(
    spec: WeightsSpec, server: Server, weights: Path
) -> None:
    with pytest.raises(WeightsError) as caught:
        ttt3r.fetch(NAME)
    text = str(caught.value)
    assert "CC-BY-NC-SA-4.0, no commercial use" in text and spec.licence_url in text
    assert server.url() in text and f"ttt3r fetch {NAME} --accept-licence" in text
    asked: list[str] = []
    with pytest.raises(WeightsError, match="was not accepted; nothing was fetched"):
        ttt3r.fetch(NAME, ask=lambda text: bool(asked.append(text)))
    assert "MB from http" in asked[0] and asked[0].endswith("go on?")
    assert server.requests == [] and not has_agreed(spec)


def test_consent_is_remembered_with_a_date_and_the_text(
    spec: WeightsSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ttt3r.fetch(NAME, ask=lambda text: True)
    note = json.loads((folder / "consent.json").read_text())
    assert note["by"] == "answer" and note["accepted"].endswith("+00:00")
    assert note["text_sha256"] == hashlib.sha256(note["text"].encode()).hexdigest()
    (folder / "model.safetensors").unlink()
    ttt3r.fetch(NAME)  # it is not asked again
    (folder / "model.safetensors").unlink()
    other = replace(CATALOGUE[NAME], licence="Other-1.0")
    monkeypatch.setitem(CATALOGUE, NAME, other)
    with pytest.raises(WeightsError, match=r"licence Other-1\.0"):
        ttt3r.fetch(NAME)
    note_path(spec).write_text("[")
    assert not has_agreed(spec)


# Other programs' files ------------------------------------------------------------------------


def hub_copy(tmp_path: Path, content: bytes, revision: str = "abc") -> Path:
    """As the hub's client keeps a file."""
    folder = tmp_path / "cache" / "huggingface" / "hub" / "models--owner--name"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "1f").write_bytes(content)
    link = folder / "snapshots" / revision / "model.pth"
    link.parent.mkdir(parents=True)
    link.symlink_to("../../blobs/1f")
    return link


@pytest.fixture
def on_hub(content: bytes, monkeypatch: pytest.MonkeyPatch) -> WeightsSpec:
    places = ("hub:owner/name@abc/model.pth",)
    also = replace(published("model.pt", content), places=places)
    file = replace(published("model.pth", content), places=places)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return publish(monkeypatch, NAME, file, also=(also,))


@pytest.mark.parametrize("revision", ["abc", "another"])
def test_files_of_the_hubs_client_are_used_where_they_are(
    revision: str, on_hub: WeightsSpec, content: bytes, tmp_path: Path
) -> None:
    there = hub_copy(tmp_path, content, revision)
    assert stock(on_hub) == stock(on_hub) and stock(on_hub).state == "elsewhere"
    with pytest.raises(WeightsError, match=r"Another program has downloaded .*model\.pth"):
        ttt3r.fetch(NAME)
    path = fetch()
    assert path.is_symlink() and path.resolve() == there.resolve()
    assert sum(p.stat().st_size for p in on_hub.folder.rglob("*") if not p.is_symlink()) < 9000
    assert load(NAME).weights.name == NAME and stock(on_hub).state == "here"
    assert fetch() == path
    assert list(there.parent.iterdir()) == [there], "nothing is written into another's cache"
    # In half precision it is converted; the other program keeps its file.
    folder = fetch(half=True)
    assert folder == on_hub.folder and not path.exists()
    assert there.read_bytes() == content


def test_files_of_torch_hub(on_hub: WeightsSpec, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cache" / "torch" / "hub" / "checkpoints" / "model.pt"
    path.parent.mkdir(parents=True)
    path.write_bytes(content[:-1])  # a common name alone is not enough
    assert stock(on_hub).state == "absent"
    path.write_bytes(content[:-1] + b"!")
    with pytest.raises(WeightsError, match=r"damaged or another file: its SHA-256 .*--anew"):
        fetch()
    path.write_bytes(content)
    assert fetch().resolve() == path and load(NAME).weights.name == NAME


def test_fresh_does_not_look(on_hub: WeightsSpec, content: bytes, tmp_path: Path) -> None:
    hub_copy(tmp_path, content)
    with pytest.raises(WeightsError, match="cannot be reached"):
        fetch(anew=True)


def test_caches_are_where_variables_say(
    on_hub: WeightsSpec, content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_copy(tmp_path, content)
    (tmp_path / "cache").rename(tmp_path / "moved")
    assert stock(on_hub).state == "absent"
    for name, value in (
        ("HF_HUB_CACHE", "moved/huggingface/hub"),
        ("HF_HOME", "moved/huggingface"),
        ("XDG_CACHE_HOME", "moved"),
    ):
        with monkeypatch.context() as patched:
            patched.setenv(name, str(tmp_path / value))
            assert stock(on_hub).state == "elsewhere", name


# Interruptions, disks, and two at once --------------------------------------------------------


def test_an_interrupted_conversion_is_gone_on_with(spec: WeightsSpec, server: Server) -> None:
    def stop(label: str, done: int, total: int | None) -> None:
        if label == "converting" and total and done > total // 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(progress=stop)
    assert stock(spec).state == "here", "the published file is whole"
    part = spec.folder / "model.safetensors.part"
    length = part.stat().st_size
    assert length > 10_000
    told: list[int] = []
    fetch(progress=lambda label, done, total: told.append(done))
    assert told[0] > length and len(server.requests) == 1 and not part.exists()
    assert load(NAME).weights.trained


def test_too_little_space_is_told_before_the_first_byte(
    spec: WeightsSpec, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage("/")._replace(free=40_000_000)
    monkeypatch.setattr(obtain.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(WeightsError, match=r"has 40\.0 MB free, but .* are needed to fetch and"):
        fetch()
    assert server.requests == []


def test_two_processes_at_once(spec: WeightsSpec, server: Server) -> None:
    with obtain.only_one(spec):
        with pytest.raises(WeightsError, match="another program is fetching"):
            fetch()
        code = (
            "import ttt3r, sys\n"
            "try: ttt3r.fetch('cut3r_224_linear_4', accept_licence=True)\n"
            "except ttt3r.Ttt3rError as error: sys.exit(str(error))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 1 and "another program is fetching" in done.stderr
    assert server.requests == []
    fetch()


def test_a_folder_that_cannot_be_made(
    spec: WeightsSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("TTT3R_WEIGHTS", str(tmp_path / "file"))
    with pytest.raises(WeightsError, match=r"cannot write to .*Set TTT3R_WEIGHTS"):
        fetch()


def test_loading_asks_nobody(spec: WeightsSpec, server: Server) -> None:
    with pytest.raises(WeightsError, match=f"ttt3r fetch {NAME}"):
        load(NAME)
    assert server.requests == []


# What is here ---------------------------------------------------------------------------------


def test_stock_and_removal(spec: WeightsSpec, server: Server, weights: Path) -> None:
    assert stock(spec).state == "absent" and remove(spec) == ([], 0)
    with pytest.raises(KeyboardInterrupt):
        fetch(progress=lambda label, done, total: interrupt() if done else None)
    found = stock(spec)
    assert found.state == "partly" and found.size
    assert remove(spec)[1] > 0 and not spec.folder.exists()
    fetch(keep=True)
    (spec.folder / "mine.txt").write_text("mine")
    assert stock(spec).state == "here"
    removed, freed = remove(spec)
    assert freed > 100_000 and {p.name for p in removed} >= {"model.safetensors", f"{NAME}.pth"}
    assert names(weights) == [f"{NAME}/mine.txt"]
    assert stock(CATALOGUE["tiny-dpt"]).state == "random"
    assert stock(CATALOGUE["builtin"]).state == "packaged"


def interrupt() -> None:
    raise KeyboardInterrupt


def test_links_are_removed_not_what_they_lead_to(
    on_hub: WeightsSpec, content: bytes, tmp_path: Path
) -> None:
    there = hub_copy(tmp_path, content)
    fetch()
    remove(on_hub)
    assert there.read_bytes() == content and stock(on_hub).state == "elsewhere"


def test_verify_finds_damage_that_times_do_not_show(spec: WeightsSpec, weights: Path) -> None:
    path = fetch() / "model.safetensors"
    (checked,) = verify(spec)
    assert checked.path == path and {checked.sha256} == checked.known
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(-1, io.SEEK_END)
        file.write(b"\xff")
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))
    assert file_sha256(path) in checked.known, "what is remembered is believed"
    (again,) = verify(spec)
    assert again.sha256 not in again.known == checked.known


def test_verify_compares_published_files_with_the_catalogue(
    spec: WeightsSpec, content: bytes, weights: Path
) -> None:
    weights.mkdir()
    path = weights / f"{NAME}.pth"
    path.write_bytes(content + b"!")
    (checked,) = verify(spec)
    assert checked.known == {spec.files[0].sha256} and checked.sha256 not in checked.known
    path.write_bytes(content)
    (checked,) = verify(spec)
    assert checked.sha256 in checked.known
