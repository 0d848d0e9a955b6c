"""The folder of an evaluation: what is in it, who may write to it, and how it is continued.

FOLDER/
  evaluation.json                 what all rules have in common; continued only under the same
  RULE/sequences/SEQUENCE/scores.json     the numbers of one sequence; there once it is done
  RULE/sequences/SEQUENCE/…               what figures are drawn from
  RULE/summary.json               everything about a rule: settings, sequences, means
  summary.md, summary.tex, plots/ the report on all rules
"""

import contextlib
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttt3r.errors import RunError
from ttt3r.evaluation.results import (
    FORMAT,
    Evaluation,
    SequenceScores,
    Settings,
    evaluation_json,
    read_evaluation,
    read_json,
    sequence_from,
    to_json,
)
from ttt3r.files import lock, write_atomically

MANIFEST, LOCK, SCORES, SUMMARY = "evaluation.json", ".lock", "scores.json", "summary.json"
REPORTS = ("summary.md", "summary.tex")
PLOTS, SEQUENCES = "plots", "sequences"
VARYING = ("rule", "reset")  # what may differ within one folder
ADVICE = "What is done is kept; mend it, then go on with --resume."


class Store:
    """An evaluation's folder, held against a second writer.

    Args:
        folder: created if absent.
        settings: of any rule; rule and reset policy do not matter.
        resume: continue what is there; if nothing is, start.
        overwrite: delete the evaluation that is there first.

    Raises:
        RunError: if the folder holds something else, or an evaluation under other settings, is in
            use, or cannot be written.
    """

    def __init__(
        self, folder: Path, settings: Settings, *, resume: bool = False, overwrite: bool = False
    ) -> None:
        check_folder(folder, resume=resume, overwrite=overwrite)
        self.folder = folder
        common = {
            "format": FORMAT,
            **{k: v for k, v in _plain(settings).items() if k not in VARYING},
        }
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held = lock(folder / LOCK)
        if held is None:
            raise RunError(f"another process is writing the evaluation in {folder}")
        self._held = held
        try:
            if overwrite:
                _clear(folder)
            if (folder / MANIFEST).exists():
                _compare(folder, read_json(folder / MANIFEST), common)
            else:
                text = json.dumps(common, indent=1, ensure_ascii=False) + "\n"
                with explained(folder):
                    write_atomically(folder / MANIFEST, lambda p: p.write_text(text, "utf-8"))
        except BaseException:
            held.close()
            raise

    def sequence(self, label: str, name: str) -> Path:
        """Return the folder of a sequence under a rule."""
        return self.folder / slug(label) / SEQUENCES / slug(name)

    def read(self, label: str, name: str) -> SequenceScores | None:
        """Return the scores of a sequence; None if it is not done.

        Raises:
            RunError: if they are damaged.
        """
        path = self.sequence(label, name) / SCORES
        if not path.exists():
            return None
        try:
            return sequence_from(read_json(path))
        except (KeyError, TypeError, ValueError, RunError) as error:
            raise RunError(f"{path} is damaged: {error}. Delete it, then --resume.") from error

    def write(self, label: str, scores: SequenceScores) -> None:
        """Write the scores of a sequence; it counts as done from then on."""
        text = to_json(scores) + "\n"
        path = self.sequence(label, scores.sequence) / SCORES
        write_atomically(path, lambda file: file.write_text(text, "utf-8"), sync=True)

    def write_summary(self, evaluation: Evaluation) -> Path:
        """Write everything about a rule."""
        path = self.folder / slug(evaluation.label) / SUMMARY
        text = evaluation_json(evaluation) + "\n"
        write_atomically(path, lambda file: file.write_text(text, "utf-8"), sync=True)
        return path

    def close(self) -> None:
        """Let go of the folder."""
        self._held.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def evaluations_in(folder: Path) -> list[Evaluation]:
    """Read every rule's summary in a folder, in the order of their names."""
    return [read_evaluation(path) for path in sorted(folder.glob(f"*/{SUMMARY}"))]


def slug(name: str) -> str:
    """Return a name as a file name: "damped(ttt3r, 0.5)" becomes "damped-ttt3r-0.5"."""
    return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "-"


def check_folder(folder: Path, *, resume: bool, overwrite: bool) -> None:
    """Check, without changing anything, that an evaluation may be written to a folder.

    Raises:
        RunError: if it holds another evaluation, or something else.
    """
    if resume and overwrite:
        raise RunError("choose either --resume or --overwrite")
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunError(f"{folder} is a file; choose another output folder")
    if not (folder / MANIFEST).exists():
        if any(path.name != LOCK for path in folder.iterdir()):
            raise RunError(
                f"{folder} holds other files and no evaluation; choose an empty or new folder"
            )
    elif not (resume or overwrite) and any(folder.glob(f"*/{SEQUENCES}/*/{SCORES}")):
        raise RunError(
            f"{folder} already holds an evaluation; add --resume to continue it, --overwrite to "
            "replace it, or choose another output folder"
        )


@contextlib.contextmanager
def explained(folder: Path) -> Iterator[None]:
    """Turn system errors into messages that say how to go on."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise RunError(f"cannot write the evaluation in {folder}: {reason}. {ADVICE}") from error


def _plain(settings: Settings) -> dict[str, Any]:
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def _compare(folder: Path, stored: Any, wanted: dict[str, Any]) -> None:
    if not isinstance(stored, dict) or stored.get("format") != FORMAT:
        raise RunError(f"{folder / MANIFEST} is none of ours; choose another output folder")
    differences = [
        f"  {key}: was {json.dumps(stored.get(key))}, now {json.dumps(wanted.get(key))}"
        for key in sorted(stored.keys() | wanted.keys())
        if stored.get(key) != wanted.get(key)
    ]
    if differences:
        raise RunError(
            f"the evaluation in {folder} was started with other settings:\n"
            + "\n".join(differences)
            + "\nRepeat them to resume, or use --overwrite to start again."
        )


def _clear(folder: Path) -> None:
    """Delete an evaluation's own files and nothing else."""
    for rule in {path.parents[2] for path in folder.glob(f"*/{SEQUENCES}/*/*")}:
        shutil.rmtree(rule / SEQUENCES)
        (rule / SUMMARY).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds something that is not ours
            rule.rmdir()
    shutil.rmtree(folder / PLOTS, ignore_errors=True)
    for name in (*REPORTS, MANIFEST):
        (folder / name).unlink(missing_ok=True)
