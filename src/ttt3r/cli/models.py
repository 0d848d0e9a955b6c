"""``ttt3r models``: the weights that are known by name, and what is on this machine of them."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from ttt3r.cli.command import Command, Debug, Flag, option, print_table
from ttt3r.files import bytes_text

if TYPE_CHECKING:
    from ttt3r.weights import WeightsSpec


@dataclass(frozen=True)
class ModelsCommand(Command):
    """List the weights that are known by name, their licences and sizes, and where they are."""

    remove: Annotated[str | None, option("NAME", "nothing is removed")] = None
    """Remove what is on this machine of these weights; files of other programs stay."""

    verify: Flag = False
    """Compute the hashes of all weights on this machine anew, and compare them."""

    debug: Debug = False

    def main(self) -> int:
        """Print the catalogue, or check or remove weights."""
        if self.remove is not None:
            return _remove(self.remove)
        return _verify() if self.verify else _list()


def _list() -> int:
    from ttt3r.weights import CATALOGUE, FAMILIES, weights_folder

    rows = [("NAME", "FAMILY", "LICENCE", "SIZE", "ON DISK", "ORIGIN")]
    for spec in CATALOGUE.values():
        rows.append((spec.name, spec.family, spec.licence, *_where(spec), spec.origin_url))
    print_table(rows)
    print(f"\nFamilies: {', '.join(FAMILIES)}.")
    print("A family's name stands for the first of its released weights.")
    print(f"Weights are kept in {weights_folder()} (set TTT3R_WEIGHTS to change it).")
    print("To get weights, or to go on with those that are partly here: ttt3r fetch NAME")
    return 0


def _where(spec: "WeightsSpec") -> tuple[str, str]:
    """Size, and where the weights are."""
    from ttt3r.weights.fetching import stock

    found = stock(spec)
    size = spec.download_size if found.size is None or found.state == "partly" else found.size
    text = "" if size is None else bytes_text(size)
    match found.state:
        case "random":
            return "", "not needed (random)"
        case "packaged":
            return text, "in this package"
        case "here":
            return text, str(found.path)
        case "partly":
            return text, f"partly, {bytes_text(found.size or 0)} in {found.path}"
        case "elsewhere":
            return text, f"elsewhere, {found.path}"
    return text or "unknown", "no"


def _remove(name: str) -> int:
    from ttt3r.weights.fetching import published, remove

    spec = published(name)
    removed, freed = remove(spec)
    for path in removed:
        print(f"removed {path}")
    print(
        f"{spec.name}: {f'{bytes_text(freed)} freed' if removed else 'nothing is on this machine'}"
    )
    return 0


def _verify() -> int:
    from ttt3r.weights import CATALOGUE
    from ttt3r.weights.fetching import stock, verify

    damaged = 0
    for spec in CATALOGUE.values():
        for checked in verify(spec) if stock(spec).state == "here" else ():
            if not checked.known:
                result = f"nothing to compare with; written down: {checked.sha256}"
            elif checked.sha256 in checked.known:
                result = "good"
            else:
                damaged += 1
                expected = " or ".join(sorted(checked.known))
                result = f"DAMAGED: SHA-256 {checked.sha256}, expected {expected}"
            print(f"{spec.name}: {checked.path}: {result}")
    if damaged:
        print("Remove what is damaged with `ttt3r models --remove NAME`, and fetch it again.")
    return 1 if damaged else 0
