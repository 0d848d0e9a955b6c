"""Turn any loadable weights into a folder that loads fast, holds no code and knows its licence."""

from pathlib import Path

from ttt3r.errors import SettingError, WeightsError
from ttt3r.files import has_text_name, user_path, write_atomically
from ttt3r.models.registry import family_of
from ttt3r.weights.card import card_text
from ttt3r.weights.catalogue import TENSORS_FILE
from ttt3r.weights.hashes import remember
from ttt3r.weights.network import check_fit, expected_shapes, shapes_of
from ttt3r.weights.sources import CARD_FILE, CARD_KEY, open_weights
from ttt3r.weights.writing import CODES, Progress, write_safetensors


def convert(
    source: str | Path,
    target: str | Path,
    dtype: str = "float32",
    overwrite: bool = False,
    family: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write weights as ``target/model.safetensors`` and ``target/config.json``.

    Tensors pass through one at a time, so little more memory than the largest is needed. What is
    written is compared with the source before it gets its name. An interrupted conversion leaves
    ``model.safetensors.part``, and the same call goes on with it.

    Args:
        source: whatever `load` takes.
        target: folder to write; made if it is not there.
        dtype: how to store the tensors: "float32", "bfloat16" or "float16". What they compute in
            is chosen on loading, so this trades accuracy for space on disk.
        overwrite: replace weights that are in the folder already.
        family: which network the weights belong to, see `load`.
        progress: is told bytes so far and bytes of all; each is counted when it is written and
            when it is compared.

    Returns:
        The folder.

    Raises:
        SettingError: if `dtype` or `family` is unknown.
        WeightsError: if the source cannot be read or does not fit its network, or the target
            cannot be written.
    """
    if dtype not in CODES:
        raise SettingError(f"unknown dtype {dtype!r}; choose {', '.join(CODES)}")
    target = user_path(target)
    if not has_text_name(target):
        raise WeightsError(
            f"the name {str(target)!r} is not valid UTF-8, which weight files need; choose another "
            "folder"
        )
    paths = [target / TENSORS_FILE, target / CARD_FILE]
    existing = next((path for path in paths if path.exists()), None)
    if existing is not None and not overwrite:
        raise WeightsError(
            f"{existing} exists already; choose another folder, or allow it to be overwritten"
        )
    info, tensors, release = open_weights(source, family)
    family_of(info.config).check(info.config, shapes_of(tensors))
    expected = expected_shapes(info.config)
    check_fit(expected, tensors)
    card = card_text(info)
    ordered = {key: tensors[key] for key in expected}
    told = progress or (lambda *_: None)
    try:
        target.mkdir(parents=True, exist_ok=True)
        sha256 = write_safetensors(paths[0], ordered, dtype, {CARD_KEY: card}, release, told)
        remember(paths[0], sha256)
        write_atomically(paths[1], lambda path: path.write_bytes(card.encode()), sync=True)
    except OSError as error:
        raise WeightsError(
            f"cannot write to {target}: {error.strerror or error}. Free some space, or choose "
            "another folder."
        ) from error
    return target
