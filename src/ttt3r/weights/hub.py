"""What the folder of a download from the Hugging Face hub says of the weights in it."""

import re
from pathlib import Path

HUB = "https://huggingface.co"
SPDX = {"apache-2.0": "Apache-2.0", "mit": "MIT", "bsd-3-clause": "BSD-3-Clause"}
MOST_READ = 100_000  # bytes of a text; titles and front matter come first
_FRONT_MATTER = re.compile(r"\s*---[ \t]*\n(.*?)\n---", re.DOTALL)
_SNAPSHOT = re.compile(r"models--([^/\\]+?)--([^/\\]+)")


def repository(path: Path) -> str | None:
    """Return "owner/name" of a file or folder in ``models--owner--name/snapshots/<commit>/``."""
    for parent in path.absolute().parents:
        if parent.name == "snapshots" and (found := _SNAPSHOT.fullmatch(parent.parent.name)):
            return f"{found[1]}/{found[2]}"
    return None


def stated_licence(folder: Path) -> str | None:
    """Return the licence that ``README.md`` or a ``LICENSE`` file of a folder states.

    The former is an identifier of the hub, written as SPDX does; the latter gives its first line.
    """
    front = _FRONT_MATTER.match(_text(folder / "README.md"))
    if front is not None:
        stated = _entry("license", front[1])
        if stated is not None and stated.lower() == "other":
            stated = _entry("license_name", front[1])
        if stated is not None:
            return SPDX.get(stated.lower(), stated.upper() if stated[:3] == "cc-" else stated)
    for name in ("LICENSE", "LICENSE.md", "LICENSE.txt", "LICENCE"):
        lines = (line.strip(" #*\t") for line in _text(folder / name).splitlines())
        title = next((line for line in lines if line), None)
        if title is not None:
            return title[:100]
    return None


def _entry(name: str, front: str) -> str | None:
    """One text of a front matter, or the first of a list of them; no more of YAML is needed."""
    found = re.search(rf"^{name}:\s*(?:-\s*)?[\"']?([^\s\"'#]+)", front, re.MULTILINE)
    return None if found is None else found[1]


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(MOST_READ).decode("utf-8-sig", "replace").replace("\r\n", "\n")
    except OSError:
        return ""
