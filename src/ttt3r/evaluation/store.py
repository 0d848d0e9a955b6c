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
from collections.abc import Iterable, Iterator, Mapping
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
from ttt3r.files import lock, write_atomically, write_text

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
VARYING = ("rule", "reset", "pose_from")  # what may differ within one folder
NAMES = "sequences"  # entry of the manifest: all that were ever asked for
ADVICE = "What is done is kept; fix that, then go on with --resume."


class Store:
    """An evaluation's folder, held against a second writer.

    Args:
        folder: created if absent.
        settings: of any rule; rule and reset do not matter.
        content: names of the sequences that will be evaluated, to what tells their data from
            others of the same name (`Sequence.digest`); "" if that is unknown.
        resume: continue what is there; if nothing is, start.
        overwrite: delete the evaluation that is there first.

    Raises:
        RunError: if the folder holds something else, or an evaluation under other settings or of
            other data, is in use, or cannot be written.
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
        common = json.loads(json.dumps(dataclasses.asdict(settings)))
        common = {"format": FORMAT, **{k: v for k, v in common.items() if k not in VARYING}}
        with explained(folder):
            folder.mkdir(parents=True, exist_ok=True)
            held = lock(folder / LOCK)
        if held is None:
            raise RunError(f"another process is writing the evaluation in {folder}")
        self._held = held
        try:
            if overwrite:
                _clear(folder)
            stored: dict[str, Any] = {}
            if (folder / MANIFEST).exists():
                stored = read_json(folder / MANIFEST)
                _check_settings(folder, stored, common)
            self.names = list(dict.fromkeys([*stored.get(NAMES, []), *content]))
            self._check_content(content)
            text = json.dumps(common | {NAMES: self.names}, indent=1, ensure_ascii=False) + "\n"
            with explained(folder):
                write_atomically(folder / MANIFEST, lambda path: write_text(path, text))
        except BaseException:
            held.close()
            raise

    def sequence(self, label: str, name: str) -> Path:
        """Return the folder of a sequence under a rule."""
        return self.folder / slug(label) / SEQUENCES / slug(name)

    def read(self, label: str, name: str) -> SequenceScores | None:
        """Return the scores of a sequence; None if there are none.

        Raises:
            RunError: if they are damaged.
        """
        return self._read(self.sequence(label, name) / SCORES, name)

    def read_all(self, label: str) -> tuple[SequenceScores, ...]:
        """Return the scores of all sequences of a rule that were ever evaluated here.

        Raises:
            RunError: if some are damaged.
        """
        found = (self.read(label, name) for name in self.names)
        return tuple(scores for scores in found if scores is not None)

    def write(self, label: str, scores: SequenceScores) -> None:
        """Write the scores of a sequence; it counts as done from then on, if it was readable."""
        path = self.sequence(label, scores.sequence) / SCORES
        path.parent.mkdir(parents=True, exist_ok=True)
        text = to_json(scores)
        write_atomically(path, lambda file: write_text(file, text), sync=True)

    def write_summary(self, evaluation: Evaluation) -> None:
        """Write everything about a rule."""
        path, text = self.folder / slug(evaluation.label) / SUMMARY, evaluation_json(evaluation)
        write_atomically(path, lambda file: write_text(file, text), sync=True)

    def close(self) -> None:
        """Let go of the folder."""
        self._held.close()

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read(self, path: Path, name: str) -> SequenceScores | None:
        if not path.exists():
            return None
        try:
            scores = sequence_from(read_json(path), self._settings)
            if scores.sequence != name:
                raise RunError(f"it holds the scores of {scores.sequence!r}, not of {name!r}")
        except (KeyError, TypeError, ValueError, RunError) as error:
            raise RunError(f"{path} is damaged: {error}. Delete it, then --resume.") from error
        return scores

    def _check_content(self, content: Mapping[str, str]) -> None:
        """Check that what is scored already was scored on the same data."""
        for name, digest in ((n, d) for n, d in content.items() if d):
            for rule in self.folder.glob(f"*/{SEQUENCES}"):
                scores = self._read(rule / slug(name) / SCORES, name)
                if scores is not None and scores.readable and scores.digest != digest:
                    raise RunError(
                        f"the data of {name} are not those that were evaluated in {self.folder}: "
                        "their poses, file names or sizes differ. Choose another output folder, "
                        "or use --overwrite to start again."
                    )


def evaluations_in(folder: Path) -> list[Evaluation]:
    """Read every rule's summary in a folder, in the order of their names."""
    return [read_evaluation(path) for path in sorted(folder.glob(f"*/{SUMMARY}"))]


def slug(name: str) -> str:
    """Return a name as a file name that no other name has.

    "stream-0" stays; "chess/seq-03" becomes "chess-seq-03-" and the beginning of its hash. So
    does a name with capital letters: for some file systems "Room" and "room" are one.
    """
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.")
    if plain == name == name.lower():
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


def _check_settings(folder: Path, stored: Any, wanted: dict[str, Any]) -> None:
    written = str(stored.get("format")) if isinstance(stored, dict) else ""
    if not written.startswith(KIND):
        raise RunError(f"{folder / MANIFEST} is not an evaluation; choose another output folder")
    if written != FORMAT:
        raise RunError(
            f"the evaluation in {folder} was written by another version; use --overwrite to "
            "evaluate again, or choose another output folder"
        )
    differences = [
        f"  {key}: was {json.dumps(stored.get(key))}, now {json.dumps(wanted.get(key))}"
        for key in sorted((stored.keys() | wanted.keys()) - {NAMES})
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
    ours = list(_own_files(folder, manifest.get(NAMES, []) if isinstance(manifest, dict) else []))
    for path in ours:
        path.unlink(missing_ok=True)
    for parent in sorted({p for path in ours for p in path.parents if folder in p.parents})[::-1]:
        with contextlib.suppress(OSError):  # it holds something that is not ours, or is not there
            parent.rmdir()


def _own_files(folder: Path, names: Iterable[str]) -> Iterator[Path]:
    yield from (folder / name for name in (*REPORTS, MANIFEST, f"{PLOTS}/{LENGTHS}"))
    rules = {path.parent for path in folder.glob(f"*/{SEQUENCES}") if path.is_dir()}
    for rule in rules | {path.parent for path in folder.glob(f"*/{SUMMARY}")}:
        summary = rule / SUMMARY
        if summary.exists() and KIND in summary.read_text("utf-8", errors="replace"):
            yield summary
        for name in map(slug, names):
            kept = rule / SEQUENCES / name
            yield from (*(kept / file for file in (SCORES, *ARTIFACTS)), *kept.glob(".*.tmp"))
            yield folder / PLOTS / f"{name}-{rule.name}.png"
            yield folder / PLOTS / f"{name}.png"
