"""The licence of weights is shown before they are fetched; that it was accepted is written down."""

import hashlib
import json
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from ttt3r.errors import WeightsError
from ttt3r.files import write_atomically, write_text
from ttt3r.weights.catalogue import WeightsSpec, restriction

NOTE = "consent.json"
logger = logging.getLogger("ttt3r.weights")

Ask = Callable[[str], bool]
"""Shows a text that ends in a question, and returns whether the answer was yes."""


def terms(spec: WeightsSpec) -> str:
    """What is agreed to."""
    return (
        f"The weights {spec.name} are published by {spec.origin_url} under the licence "
        f"{spec.licence}{restriction(spec.licence)}: {spec.licence_url}"
    )


def agree(spec: WeightsSpec, plan: str, accept_licence: bool, ask: Ask | None) -> None:
    """See to it that the user has accepted the licence, and write it down.

    Licence and plan are shown in any case: in the question, or in the log.

    Args:
        spec: the weights.
        plan: what will be done, for the question.
        accept_licence: the user said so beforehand.
        ask: asks the user; None where nobody can be asked.

    Raises:
        WeightsError: if the licence is not accepted.
    """
    text = terms(spec)
    if accept_licence or has_agreed(spec):
        logger.info("%s", text)
        logger.info("%s", plan)
    if has_agreed(spec):
        return
    if not accept_licence:
        if ask is None:
            raise WeightsError(
                f"{text}\n{plan}\nTo accept the licence and go on, run:\n"
                f"  ttt3r fetch {spec.name} --accept-licence"
            )
        if not ask(f"{text}\n{plan}\nAccept the licence and go on?"):
            raise WeightsError(f"the licence of {spec.name} was not accepted; nothing was fetched")
    note = {
        "weights": spec.name,
        "licence": spec.licence,
        "text": text,
        "text_sha256": _digest(text),
        "accepted": datetime.now(UTC).isoformat(timespec="seconds"),
        "by": "option" if accept_licence else "answer",
    }
    content = json.dumps(note, indent=1) + "\n"
    write_atomically(note_path(spec), lambda path: write_text(path, content))


def has_agreed(spec: WeightsSpec) -> bool:
    """Whether the user accepted just these terms before."""
    try:
        note = json.loads(note_path(spec).read_text("utf-8"))
        return note["text_sha256"] == _digest(terms(spec))
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def note_path(spec: WeightsSpec) -> Path:
    """Where it is written down that the licence was accepted."""
    return spec.folder / NOTE


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
