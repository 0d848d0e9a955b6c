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
import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ttt3r.errors import RunError
from ttt3r.evaluation.results import (
    FORMAT,
    KIND,
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
PLOTS, LENGTHS, SEQUENCES = "plots", "lengths.png", "sequences"
# What a sequence leaves besides its scores, for figures.
ARTIFACTS = (ESTIMATE, TRUTH, MAPS, CLOUDS) = (
    "estimate.txt",
    "truth.txt",
    "depth.npz",
    "clouds.npz",
)
VARYING = ("rule", "reset")  # what may differ within one folder
ADVICE = "What is done is kept; mend it, then go on with --resume."


class Store:
    """An evaluation's folder, held against a second writer.

    Args:
        folder: created if absent.
        settings: of any rule; rule and reset policy do not matter.
        content: what tells the data apart from others of the same name, by sequence.
        resume: continue what is there; if nothing is, start.
        overwrite: delete the evaluation that is there first.

    Raises:
        RunError: if the folder holds something else, or an evaluation under other settings, is in
            use, or cannot be written.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        content: Mapping[str, str] = MappingProxyType({}),
        *,
        resume: bool = False,
        overwrite: bool = False,
    ) -> None:
        check_folder(folder, resume=resume, overwrite=overwrite)
        self.folder, self._settings = folder, settings
        common = {
            "format": FORMAT,
            **{k: v for k, v in _plain(settings).items() if k not in VARYING},
            **{f"content of {name}": digest for name, digest in content.items()},
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
            scores = sequence_from(read_json(path), self._settings)
            if scores.sequence != name:
                raise RunError(f"it holds the scores of {scores.sequence!r}, not of {name!r}")
        except (KeyError, TypeError, ValueError, RunError) as error:
            raise RunError(f"{path} is damaged: {error}. Delete it, then --resume.") from error
        return scores

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
    """Return a name as a file name that no other name has.

    "stream-0" stays; "chess/seq-03" becomes "chess-seq-03-" and the beginning of its hash.
    """
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    if plain == name:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:6]
    return f"{plain}-{digest}" if plain else digest


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
    written = str(stored.get("format")) if isinstance(stored, dict) else ""
    if not written.startswith(KIND):
        raise RunError(f"{folder / MANIFEST} is none of ours; choose another output folder")
    if written != FORMAT:
        raise RunError(
            f"the evaluation in {folder} was written by another version; use --overwrite to "
            "evaluate again, or choose another output folder"
        )
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
    if not (folder / MANIFEST).exists():
        return
    manifest = read_json(folder / MANIFEST)
    names = manifest.get("sequences", []) if isinstance(manifest, dict) else []
    ours = [folder / name for name in (*REPORTS, MANIFEST)]
    rules = [path.parent for path in folder.glob(f"*/{SEQUENCES}") if path.is_dir()]
    for rule in {*rules, *(path.parent for path in folder.glob(f"*/{SUMMARY}"))}:
        summary = rule / SUMMARY
        if summary.exists() and KIND in summary.read_text("utf-8", errors="replace"):
            ours.append(summary)
        for name in names:
            kept = rule / SEQUENCES / slug(name)
            ours += [*(kept / file for file in (SCORES, *ARTIFACTS)), *kept.glob(".*.tmp")]
            ours.append(folder / PLOTS / f"{slug(name)}-{rule.name}.png")
    ours += [folder / PLOTS / f"{slug(name)}.png" for name in names]
    ours.append(folder / PLOTS / LENGTHS)
    for path in ours:
        path.unlink(missing_ok=True)
    for parent in sorted({p for path in ours for p in path.parents if folder in p.parents})[::-1]:
        with contextlib.suppress(OSError):  # it holds something that is not ours, or is not there
            parent.rmdir()
