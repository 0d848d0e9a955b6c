"""Files on the Hugging Face hub or a mirror of it: addresses, token, and reasons of refusals."""

import os
import re
from collections.abc import Mapping
from urllib.parse import quote

from ttt3r.weights.fetching.web import (
    Answer,
    Patience,
    RefusedError,
    Secret,
    is_loopback,
    open_url,
    origin_of,
)
from ttt3r.weights.hub import HUB

_TRUE = ("1", "ON", "YES", "TRUE")


def endpoint() -> str:
    """The hub, or the mirror that ``HF_ENDPOINT`` names."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def hub_url(repository: str, revision: str, file: str) -> str:
    """Address of a file; of a data set, the repository begins with ``datasets/``."""
    return f"{endpoint()}/{repository}/resolve/{quote(revision, safe='')}/{quote(file)}"


def open_hub(
    repository: str, revision: str, file: str, headers: Mapping[str, str], patience: Patience
) -> Answer:
    """Ask for a file, with the token of ``HF_TOKEN`` if there is one.

    Raises:
        RefusedError: if the hub refuses; the reason tells apart what can be done.
        CutError: see `open_url`.
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in _TRUE:
        raise RefusedError("HF_HUB_OFFLINE is set, so the hub is not asked")
    url = hub_url(repository, revision, file)
    token = os.environ.get("HF_TOKEN", "").strip()
    is_private = url.startswith("https://") or is_loopback(url)
    secret = Secret(token, origin_of(url)) if token and is_private else None
    answer = open_url(url, headers, patience, secret)
    if answer.status in (401, 403, 404, 410, 451):
        with answer:
            raise RefusedError(_why(answer, repository, file, secret is not None))
    return answer


def _why(answer: Answer, repository: str, file: str, has_token: bool) -> str:
    code = answer.headers.get("X-Error-Code", "")
    said = answer.headers.get("X-Error-Message", "")
    page = f"{endpoint()}/{repository}"
    if code == "GatedRepo" or (answer.status == 403 and re.search("gated|restricted", said, re.I)):
        if not has_token:
            return (
                f"{repository} is open only to accounts that accepted its terms. Accept them at "
                f"{page} in a browser, make a token at {endpoint()}/settings/tokens, and set "
                "HF_TOKEN to the token"
            )
        if re.search("reject|denied|refused", said, re.IGNORECASE):
            return f"the owners of {repository} refused the request of your account"
        if re.search("await|pending|review", said, re.IGNORECASE):
            return f"your request for {repository} waits for its owners; try again later"
        return (
            f"your account has not accepted the terms of {repository}. Accept them at {page} in a "
            "browser; a program cannot"
        )
    if answer.status == 401 and has_token:
        return "the token in HF_TOKEN is not valid, or may not read this; make a new one"
    if code == "RevisionNotFound":
        return f"{repository} no longer has the version that ttt3r knows"
    if code == "EntryNotFound" or (answer.status == 404 and code != "RepoNotFound"):
        return f"{repository} has no file {file}"
    if answer.status == 401 or code == "RepoNotFound":
        return f"there is no {repository} on the hub, or it is private"
    return f"the hub refused {file} with status {answer.status}" + (f" ({said})" if said else "")
