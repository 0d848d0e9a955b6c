"""Check what lies in the wheel and the sdist, and say how large they are."""

import sys
import tarfile
import zipfile
from pathlib import Path

# What building again may change: the list of the files' hashes.
RECORD = "RECORD"


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file of a wheel by name, but the list of hashes."""
    with zipfile.ZipFile(wheel) as archive:
        return {n: archive.read(n) for n in archive.namelist() if not n.endswith(RECORD)}


def main(most_mib: float, wheel: Path, again: Path, sdist: Path) -> None:
    """Compare a wheel with the one that its sdist gives.

    Raises:
        SystemExit: if the wheel is too large, holds what it should not, or the sdist gives another.
    """
    files = contents(wheel)
    for path in (wheel, sdist):
        print(f"{path.name}: {path.stat().st_size / 2**20:.1f} MiB")
    if wheel.stat().st_size > most_mib * 2**20:
        sys.exit(f"the wheel is larger than {most_mib} MiB")
    rooms = {name.split("/")[0] for name in files}
    information = {room for room in rooms if room.endswith(".dist-info")}
    if rooms - information != {"ttt3r"} or len(information) != 1:
        sys.exit(f"the wheel holds {sorted(rooms)}")
    for name in ("ttt3r/py.typed", "ttt3r/weights/data/builtin.safetensors"):
        if name not in files:
            sys.exit(f"the wheel lacks {name}")
    if not any(name.endswith("licenses/LICENSE") for name in files):
        sys.exit("the wheel lacks the licence")
    other = contents(again)
    different = {n for n in files.keys() | other.keys() if files.get(n) != other.get(n)}
    if different:
        sys.exit(f"the sdist builds another wheel; different: {sorted(different)[:10]}")
    with tarfile.open(sdist) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    for name in ("tests/test_readme.py", "CHANGELOG.md", "pyproject.toml", "LICENSE"):
        if name not in inside:
            sys.exit(f"the sdist lacks {name}")
    print(
        f"{len(files)} files in the wheel, {len(inside)} in the sdist, which builds the same wheel"
    )


if __name__ == "__main__":
    main(float(sys.argv[1]), *(Path(name) for name in sys.argv[2:5]))
