"""The places where a file is published, as the catalogue writes them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ttt3r.weights.fetching.drive import drive_url, open_drive
from ttt3r.weights.fetching.hub import hub_url, open_hub
from ttt3r.weights.fetching.web import Answer, Patience, RefusedError, open_url

_HUB = re.compile(r"hub:((?:datasets/)?[\w.-]+/[\w.-]+)@([\w.-]+)/(.+)")
_DRIVE = re.compile(r"drive:([\w-]+)")


@dataclass(frozen=True)
class Place:
    """Somewhere a file can be had: ``drive:ID``, ``hub:OWNER/NAME@REVISION/FILE`` or an address.

    Data sets of the hub are ``hub:datasets/OWNER/NAME@REVISION/FILE``.
    """

    text: str

    @property
    def hub_file(self) -> tuple[str, str, str] | None:
        """Repository, revision and file on the hub; None of other places."""
        found = _HUB.fullmatch(self.text)
        return None if found is None else (found[1], found[2], found[3])

    @property
    def url(self) -> str:
        """Address for people."""
        if self.hub_file is not None:
            return hub_url(*self.hub_file)
        found = _DRIVE.fullmatch(self.text)
        return self.text if found is None else drive_url(found[1])

    def open(self, headers: Mapping[str, str], patience: Patience) -> Answer:
        """Ask for the file.

        Raises:
            RefusedError: if the place does not give it.
            CutError: if that may pass.
        """
        if self.hub_file is not None:
            return open_hub(*self.hub_file, headers, patience)
        if found := _DRIVE.fullmatch(self.text):
            return open_drive(found[1], headers, patience)
        if not self.text.startswith(("https://", "http://")):
            raise RefusedError(f"{self.text!r} is not a place that ttt3r knows")
        return open_url(self.text, headers, patience)
