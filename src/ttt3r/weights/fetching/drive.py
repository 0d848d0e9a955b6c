"""Files on Google Drive: the form that large ones ask to confirm, and the pages of refusals."""

import re
from collections.abc import Mapping
from html.parser import HTMLParser
from urllib.parse import urlencode, urljoin, urlsplit

from ttt3r.weights.fetching.web import TEMPORARY, Answer, Patience, RefusedError, open_url

DRIVE = "https://drive.google.com"
_QUOTA = re.compile(r"too many users|quota exceeded|download quota", re.IGNORECASE)
_SIGN_IN = re.compile(r"accounts\.google\.com|you need access|request access", re.IGNORECASE)


def drive_url(identifier: str) -> str:
    """Address of a file that is shared with everybody."""
    return f"{DRIVE}/uc?{urlencode({'export': 'download', 'id': identifier})}"


def open_drive(identifier: str, headers: Mapping[str, str], patience: Patience) -> Answer:
    """Ask for a file, and confirm that it is wanted although it was not scanned for viruses.

    Raises:
        RefusedError: if Drive shows a page instead; the reason says which.
        CutError: see `open_url`.
    """
    answer = open_url(drive_url(identifier), headers, patience)
    if answer.status in TEMPORARY or not answer.is_page():
        return answer
    with answer:
        form = _Form()
        form.feed(answer.text())
    if form.action is None:
        raise RefusedError(_why(answer))
    action = urljoin(answer.url, form.action)
    if urlsplit(action).scheme != urlsplit(answer.url).scheme:
        raise RefusedError("Google Drive asks to confirm by a form that does not lead to Drive")
    joint = "&" if urlsplit(action).query else "?"
    confirmed = open_url(f"{action}{joint}{urlencode(form.values)}", headers, patience)
    if confirmed.status not in TEMPORARY and confirmed.is_page():
        with confirmed:
            raise RefusedError(_why(confirmed))
    return confirmed


def _why(answer: Answer) -> str:
    """Say what a page of Google Drive means, and what can be done."""
    page = answer.text()
    if _QUOTA.search(page):
        return (
            "Google Drive says that too many people have downloaded the file lately. Try again "
            "tomorrow; or sign in to Drive in a browser, copy the file to your own Drive, and "
            "download the copy"
        )
    if _SIGN_IN.search(page) or urlsplit(answer.url).hostname == "accounts.google.com":
        return "Google Drive asks to sign in: the file is no longer shared with everybody"
    if answer.status == 404:
        return "Google Drive no longer has the file"
    return "Google Drive answered with a web page instead of the file"


class _Form(HTMLParser):
    """Finds the form that confirms a download: its address and its hidden values."""

    def __init__(self) -> None:
        super().__init__()
        self.action: str | None = None
        self.values: dict[str, str] = {}
        self._inside = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if tag == "form" and "download" in found.get("id", "") + found.get("action", ""):
            self.action, self._inside = found.get("action", ""), True
        elif tag == "input" and self._inside and found.get("name"):
            self.values[found["name"]] = found.get("value", "")

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = False
