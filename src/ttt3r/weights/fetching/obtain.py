"""From a name to weights that are ready: found or downloaded, checked, and converted."""

import contextlib
import logging
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError, safe_open

from ttt3r.errors import SettingError, WeightsError
from ttt3r.files import bytes_text, lock
from ttt3r.weights.catalogue import (
    ACCEPTED,
    CATALOGUE,
    RELEASED,
    TENSORS_FILE,
    PublishedFile,
    WeightsSpec,
    find_on_disk,
    find_originals,
)
from ttt3r.weights.convert import convert
from ttt3r.weights.fetching.consent import Ask, agree
from ttt3r.weights.fetching.download import Wanted, download
from ttt3r.weights.fetching.found import find_elsewhere
from ttt3r.weights.fetching.part import part_path
from ttt3r.weights.fetching.places import Place
from ttt3r.weights.fetching.web import Patience, RefusedError
from ttt3r.weights.hashes import file_sha256, note_path, remember
from ttt3r.weights.writing import CODES

LOCK = ".lock"
ANY = "any"
SPARE = 50_000_000  # bytes that must stay free
PATIENCE = Patience()
logger = logging.getLogger("ttt3r.weights")

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, the number of bytes so far, and that of all if it is known."""


def fetch(
    name: str,
    *,
    accept_licence: bool = False,
    half: bool = False,
    keep: bool = False,
    anew: bool = False,
    sha256: str | None = None,
    ask: Ask | None = None,
    progress: Progress | None = None,
) -> Path:
    """Get published weights, check and convert them, and return what `load` takes.

    An interrupted download or conversion is gone on with by calling this again. Files that another
    program has downloaded already are checked and used where they are, without a copy. Weights that
    are here in float32 are stored anew as bfloat16 if `half` asks for it.

    Args:
        name: of the catalogue, or of a family, which stands for its released weights.
        accept_licence: the user accepts the licence of the weights.
        half: store them as bfloat16, which halves their size and loses accuracy.
        keep: keep the published file as well, after it was converted.
        anew: download even what another program has on this machine.
        sha256: of the weights, instead of the one that is known; "any" takes whatever comes.
        ask: asks the user to accept the licence; None if nobody can be asked.
        progress: is told how far each step is.

    Returns:
        The folder or file of the weights.

    Raises:
        SettingError: if there are no published weights of this name, or `sha256` is not a hash.
        WeightsError: if the licence is not accepted, no place gives the file, the disk is full, or
            the file is not what it should be.
    """
    spec = _with_hash(published(name), sha256)
    told = progress or (lambda *_: None)
    with only_one(spec):
        here = find_on_disk(spec)
        if here is not None and not _wants_conversion(spec, here, half):
            _tell_what_is_here(spec, here, half)
            return here
        original = here
        if original is None:
            original = _get(spec, half, anew, accept_licence, ask, told)
            if not _wants_conversion(spec, original, half):
                return original
        return _convert(spec, original, half, keep, told)


def published(name: str) -> WeightsSpec:
    """The published weights of a name.

    Raises:
        SettingError: if there are none.
    """
    released = RELEASED.get(name)
    spec = CATALOGUE.get(name if released is None or name in CATALOGUE else released.name)
    if spec is None:
        names = [spec.name for spec in CATALOGUE.values() if spec.files]
        raise SettingError(
            f"there are no published weights {name!r}; choose {', '.join(names)}, or a family: "
            f"{', '.join(sorted(RELEASED))}"
        )
    if not spec.files:
        raise SettingError(f"the weights {name} need no fetching: use them by their name")
    return spec


@contextlib.contextmanager
def only_one(spec: WeightsSpec) -> Iterator[None]:
    """Keep other processes from fetching or removing the same weights meanwhile.

    Raises:
        WeightsError: if one does already, or the folder cannot be made.
    """
    try:
        spec.folder.mkdir(parents=True, exist_ok=True)
        held = lock(spec.folder / LOCK)
    except OSError as error:
        raise WeightsError(
            f"cannot write to {spec.folder}: {error.strerror or error}. Set TTT3R_WEIGHTS to "
            "another folder."
        ) from error
    if held is None:
        raise WeightsError(
            f"another program is fetching {spec.name} into {spec.folder}; wait until it is done"
        )
    with held:
        yield


def _with_hash(spec: WeightsSpec, sha256: str | None) -> WeightsSpec:
    """The weights with another hash than the known one."""
    if sha256 is None:
        return spec
    chosen = sha256.strip().lower()
    if chosen != ANY and (len(chosen) != 64 or not set(chosen) <= set("0123456789abcdef")):
        raise SettingError(f"{sha256!r} is not a SHA-256: give 64 hexadecimal digits, or {ANY!r}")
    weights = replace(spec.files[0], sha256=None if chosen == ANY else chosen, size=None)
    return replace(spec, files=(weights, *spec.files[1:]), also=())


def _wants_conversion(spec: WeightsSpec, here: Path, half: bool) -> bool:
    """Whether what is here was fetched and not yet converted, or is not as small as wanted."""
    weights = _tensors_of(here)
    if here != find_originals(spec):
        return half and not _is_half(weights)
    return half or not weights.is_symlink()


def _tensors_of(here: Path) -> Path:
    return here / TENSORS_FILE if here.is_dir() else here


def _is_half(weights: Path) -> bool:
    """Whether a file stores all tensors as bfloat16."""
    if weights.suffix != ".safetensors":
        return False
    try:
        with safe_open(weights, "pt") as file:
            keys = file.keys()
            return all(file.get_slice(key).get_dtype() == CODES["bfloat16"] for key in keys)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{weights} cannot be read: {error}") from error


def _tell_what_is_here(spec: WeightsSpec, here: Path, half: bool) -> None:
    note = ""
    if here == spec.folder and not half and _is_half(_tensors_of(here)):
        note = (
            f", as bfloat16. For float32: ttt3r models --remove {spec.name}, then fetch them again"
        )
    logger.info("the weights %s are on this machine: %s%s", spec.name, here, note)


def _get(
    spec: WeightsSpec,
    half: bool,
    anew: bool,
    accept_licence: bool,
    ask: Ask | None,
    progress: Progress,
) -> Path:
    """Link or download the published files, and return what `load` takes of them."""
    found = None if anew else find_elsewhere(spec)
    if found is not None:
        first = next(iter(found.values()))
        plan = f"Another program has downloaded {first}: it will be checked and used there."
        agree(spec, plan, accept_licence, ask)
        _link(spec, found)
    else:
        size = spec.download_size
        text = "a size that is not known" if size is None else bytes_text(size)
        place = Place(spec.files[0].places[0]).url
        agree(spec, f"To be downloaded: {text} from {place} to {spec.folder}", accept_licence, ask)
        _check_space(spec, half)
        spec.originals.mkdir(parents=True, exist_ok=True)
        for file in spec.files:
            if not (spec.originals / file.name).is_file():
                _download(spec, file, progress)
    original = find_originals(spec)
    assert original is not None
    return original


def _link(spec: WeightsSpec, found: dict[str, Path]) -> None:
    """Check files of other programs, and make links to them."""
    known = {file.name: file for file in (*spec.also, *spec.files)}
    for name, path in found.items():
        digest = file_sha256(path)
        expected = known[name].sha256
        if expected not in (None, digest):
            raise WeightsError(
                f"{path} is damaged or another file: its SHA-256 is {digest}, but {expected} was "
                f"expected. To download another: ttt3r fetch {spec.name} --anew"
            )
        link = spec.originals / name
        spec.originals.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        try:
            link.symlink_to(path.absolute())
        except (OSError, NotImplementedError) as error:  # Windows, without the right to do so
            raise WeightsError(
                f"cannot make a link to {path}: {error}. Use the file by its "
                f"path, or download another: ttt3r fetch {spec.name} --anew"
            ) from error
        remember(link, digest)
        _tell_first_use(link, expected, digest)


def _download(spec: WeightsSpec, file: PublishedFile, progress: Progress) -> None:
    """Try the places of a file in order.

    Raises:
        WeightsError: saying why each of them refused.
    """
    target = spec.originals / file.name
    wanted = Wanted(file.size, file.sha256)
    reasons: list[str] = []
    for place in map(Place, file.places):
        try:
            digest = download(
                place,
                wanted,
                target,
                lambda done, total: progress(f"fetching {file.name}", done, total),
                PATIENCE,
            )
        except RefusedError as refusal:
            reasons.append(f"  {place.url}\n    {refusal}")
            logger.info("%s: %s", place.url, refusal)
            continue
        _tell_first_use(target, file.sha256, digest)
        return
    kept = part_path(target)
    rest = f"\n{kept} is kept; the same command goes on with it." if kept.is_file() else ""
    raise WeightsError(
        f"no place gave {file.name} of {spec.name}:\n"
        + "\n".join(reasons)
        + f"\nPublisher: {spec.origin_url}\nIf you have another way to get the file, save it as "
        f"{target} and run the command again.{rest}"
    )


def _tell_first_use(path: Path, expected: str | None, digest: str) -> None:
    if expected is None:
        logger.info(
            "no SHA-256 is known of %s; that of this copy is written down beside it: %s",
            path.name,
            digest,
        )


def _check_space(spec: WeightsSpec, half: bool) -> None:
    """Check that the published files and the converted ones fit on the disk.

    Raises:
        WeightsError: if they do not.
    """
    size = spec.download_size
    if size is None:
        return
    here = sum(
        path.stat().st_size
        for file in spec.files
        for path in (spec.originals / file.name, part_path(spec.originals / file.name))
        if path.is_file()
    )
    need = size - here + (size // 2 if half else size) + SPARE
    free = shutil.disk_usage(spec.folder).free
    if need > free:
        raise WeightsError(
            f"{spec.folder} has {bytes_text(free)} free, but {bytes_text(need)} are needed to "
            f"fetch and convert {spec.name}. Free some space, or set TTT3R_WEIGHTS to a folder on "
            "another disk."
        )


def _convert(spec: WeightsSpec, original: Path, half: bool, keep: bool, progress: Progress) -> Path:
    """Convert weights that are here; remove the published files, if it was these."""
    is_published = original == find_originals(spec)
    _check_originals(spec, original)
    dtype = "bfloat16" if half else "float32"
    folder = convert(
        original,
        spec.folder,
        dtype,
        overwrite=True,  # a description without tensors may be left
        progress=lambda done, total: progress("converting", done, total),
    )
    if is_published and not keep:
        for path in original_files(spec):
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # the user keeps something else there
            spec.originals.rmdir()
    return folder


def _check_originals(spec: WeightsSpec, original: Path) -> None:
    """Check the hashes of published files, however they came here.

    Raises:
        WeightsError: if one is not the published file.
    """
    first = _tensors_of(original)
    for file in (*spec.files, *spec.also):
        path = spec.originals / file.name
        if path.parent != first.parent or not path.is_file():
            continue
        digest = file_sha256(path)
        if file.sha256 not in (None, digest):
            raise WeightsError(
                f"{path} is not the published file: its SHA-256 is {digest}, but {file.sha256} "
                "was expected. Remove it and fetch again; or, if you trust it, run:\n"
                f"  ttt3r fetch {spec.name} --sha256 {digest}"
            )
        if file is spec.files[0] and CATALOGUE[spec.name].files[0].sha256 not in (None, digest):
            (spec.originals / ACCEPTED).write_text(f"{digest}\n", "ascii")


def original_files(spec: WeightsSpec) -> list[Path]:
    """Published files and all that is made beside them, whether they are there or not."""
    made = [spec.originals / ACCEPTED]
    for file in (*spec.files, *spec.also):
        path = spec.originals / file.name
        part = part_path(path)
        made += [path, note_path(path), part, part.with_name(f"{part.name}.json")]
    return made
