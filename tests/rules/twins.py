"""Every rule once more, written to be read: from full attention maps, in float64, for one stream.

A twin is a function of what was seen of one frame and of a notebook that it keeps for itself. It
returns the gate and the next state. What the formulas are is said in `docs/rules.md`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttt3r.rules import Rule
from ttt3r.values import to_text


@dataclass(frozen=True)
class Seen:
    """All there is of one frame.

    Attributes:
        state: before the frame, [tokens, channels].
        candidate: what the decoder proposes, [tokens, channels].
        logits: of the state's attention to the image, [layers, heads, tokens, 1 + patches].
        features: of the encoder, [patches, encoder channels].
        given: to the decoder, [patches, channels].
        made: by the decoder, [patches, channels].
    """

    state: np.ndarray
    candidate: np.ndarray
    logits: np.ndarray
    features: np.ndarray
    given: np.ndarray
    made: np.ndarray


Notes = dict[str, Any]
Twin = Callable[[Any, Seen, Notes], tuple[np.ndarray, np.ndarray]]
TWINS: dict[str, Twin] = {}


def twin(name: str) -> Callable[[Twin], Twin]:
    """Say that a function is the twin of the rule `name`."""

    def register(function: Twin) -> Twin:
        TWINS[name] = function
        return function

    return register


def follow(rule: Rule, seen: Seen, notes: Notes) -> tuple[np.ndarray, np.ndarray]:
    """Apply the twin of a rule to a frame; the notes are empty before the first."""
    gate, state = TWINS[rule.name](rule, seen, notes)
    assert gate.shape == seen.state.shape[:1], to_text(rule)
    return gate, state


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def cosine(a, b):
    lengths = max(np.linalg.norm(a), 1e-8) * max(np.linalg.norm(b), 1e-8)
    return float(a @ b / lengths)


def go(seen: Seen, gate) -> tuple[np.ndarray, np.ndarray]:
    return gate, gate[:, None] * seen.candidate + (1 - gate[:, None]) * seen.state


def confidence(seen: Seen) -> np.ndarray:
    return sigmoid(seen.logits.mean(axis=(0, 1, 3)))


@twin("overwrite")
def overwrite(rule, seen, notes):
    return go(seen, np.ones(len(seen.state)))


@twin("ttt3r")
def ttt3r(rule, seen, notes):
    first, notes["begun"] = "begun" not in notes, True
    return go(seen, np.ones(len(seen.state)) if first else confidence(seen))


@twin("damped")
def damped(rule, seen, notes):
    first = not notes
    gate, state = follow(rule.rule, seen, notes.setdefault("inner", {}))
    factor = 1.0 if first else rule.factor
    return factor * gate, seen.state + factor * (state - seen.state)


@twin("ttsa3r")
def ttsa3r(rule, seen, notes):
    before = notes.get("before")
    notes["before"] = seen
    if before is None:
        return go(seen, np.ones(len(seen.state)))
    change = [np.linalg.norm(a - b) for a, b in zip(seen.candidate, before.candidate, strict=True)]
    mean_map = seen.logits.mean(axis=(0, 1))
    gate = []
    for token, row in enumerate(mean_map):
        temporal = sigmoid(change[token] / np.mean(change) - rule.threshold)
        spatial = max(
            abs(row[1 + patch]) * (1 - cosine(now, earlier))
            for patch, (now, earlier) in enumerate(zip(seen.features, before.features, strict=True))
        )
        gate.append(temporal * sigmoid(spatial))
    return go(seen, np.array(gate))


@twin("memix")
def memix(rule, seen, notes):
    gate, state = follow(rule.rule, seen, notes)
    asked = min(rule.chunks or len(gate), len(gate))
    written = max(asked - round(rule.keep * asked), 1)
    length = -(-len(gate) // asked)
    chunks = [range(len(gate))[at : at + length] for at in range(0, len(gate), length)]
    look = seen.given.mean(axis=0)
    scores = [np.mean([seen.candidate[token] @ look for token in chunk]) for chunk in chunks]
    order = [chunk for chunk in np.argsort(scores, kind="stable") if chunk != rule.protect]
    kept = np.ones(len(gate), dtype=bool)
    for chunk in order[:written] if asked > written else range(len(chunks)):
        kept[chunks[chunk]] = False
    return np.where(kept, 0.0, gate), np.where(kept[:, None], seen.state, state)


@twin("filt3r")
def filt3r(rule, seen, notes):
    if not notes:
        notes["variance"], notes["candidate"] = rule.variance, seen.candidate
        return go(seen, np.ones(len(seen.state)))
    change = np.linalg.norm(seen.candidate - notes["candidate"], axis=1)
    mean = change.mean()
    if "mean" in notes:
        mean = (1 - rule.rate) * notes["mean"] + rule.rate * mean
    mean = max(mean, rule.floor)
    opened = sigmoid(rule.slope * (change / (mean + 1e-6) - rule.threshold))
    noise = rule.least_noise + (rule.most_noise - rule.least_noise) * opened
    variance = rule.growth * notes["variance"] + noise
    gain = variance / (variance + rule.measurement + 1e-6)
    gain = np.clip(gain, rule.least_gain, rule.most_gain)
    notes["variance"] = (1 - gain) ** 2 * variance + gain**2 * rule.measurement
    notes["mean"], notes["candidate"] = mean, seen.candidate
    return go(seen, gain)


@twin("recal3r")
def recal3r(rule, seen, notes):
    count, patches = len(seen.state), len(seen.given)
    if not notes:
        notes["initial"], notes["pressure"] = seen.state, np.zeros(count)
        return go(seen, np.ones(count))
    beta = confidence(seen)
    notes["pressure"] = rule.keep * notes["pressure"] + (1 - rule.keep) * beta
    residual = np.linalg.norm(seen.given - seen.made, axis=1).mean()
    residual /= np.linalg.norm(seen.given, axis=1).mean() + 1e-6
    trust = beta * np.exp(-notes["pressure"]) * sigmoid(residual - 0.2)
    weights = np.exp(seen.logits[..., 1:])
    weights /= weights.sum(axis=-1, keepdims=True)
    entropy = -(weights * np.log(weights)).sum(axis=-1) / np.log(patches)
    entropy = {"mean": np.mean, "max": np.max, "min": np.min}[rule.entropy](entropy, axis=(0, 1))
    drift = np.linalg.norm(seen.state - notes["initial"], axis=1)
    spread = np.argsort(np.argsort(entropy)) / (count - 1)
    near = 1 - (np.argsort(np.argsort(drift)) + 1) / count
    yes, no = near * (1 - spread), (1 - near) * spread
    share = yes / (yes + no + 1e-8)
    doubt = 1 - share * (1 - 4 * share * (1 - share))
    raw = (1 - doubt) * trust + rule.base * doubt
    return go(seen, np.clip(0.5 * raw + 0.5 * raw.mean(), 0, 1))


@twin("brake")
def brake(rule, seen, notes):
    if not notes:
        notes["change"] = None
        return go(seen, np.ones(len(seen.state)))
    change, before = seen.candidate - seen.state, notes["change"]
    notes["change"] = change
    if before is None:
        return go(seen, 0.5 * confidence(seen))
    alike = np.array([cosine(a, b) for a, b in zip(change, before, strict=True)])
    return go(seen, confidence(seen) * sigmoid(-rule.strength * alike))


@twin("ortho")
def ortho(rule, seen, notes):
    if not notes:
        notes["direction"] = notes["energy"] = None
        return go(seen, np.ones(len(seen.state)))
    change, gate = seen.candidate - seen.state, confidence(seen)
    unit = change / np.linalg.norm(change, axis=1, keepdims=True)
    if notes["direction"] is None:
        notes["direction"] = unit
        return gate, seen.state + gate[:, None] * rule.across * change
    direction = rule.keep * notes["direction"] + (1 - rule.keep) * unit
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    energy = (unit * direction).sum(axis=1) ** 2
    if notes["energy"] is not None:
        energy = rule.keep * notes["energy"] + (1 - rule.keep) * energy
    notes["direction"], notes["energy"] = direction, energy
    along = (change * direction).sum(axis=1, keepdims=True) * direction
    factor = {
        "none": np.full(len(gate), rule.along),
        "linear": rule.along + (rule.across - rule.along) * energy,
        "threshold": np.where(energy > 0.5, rule.across, rule.along),
    }[rule.adaptive]
    moved = rule.across * (change - along) + factor[:, None] * along
    return gate, seen.state + gate[:, None] * moved


@twin("paced")
def paced(rule, seen, notes):
    gate, state = follow(rule.rule, seen, notes.setdefault("inner", {}))
    before, notes["features"] = notes.get("features"), seen.features
    if before is None:
        return gate, state
    change = np.mean([1 - cosine(a, b) for a, b in zip(seen.features, before, strict=True)])
    pace = notes["pace"] = (
        rule.keep * notes["pace"] + (1 - rule.keep) * change if "pace" in notes else change
    )
    slowed = 1 - (1 - gate) ** min(1.0, change / pace)
    return slowed, seen.state + (slowed / gate)[:, None] * (state - seen.state)


@twin("split")
def split(rule, seen, notes):
    """Of the state; that of the pose memory has a test of its own."""
    return follow(rule.rule, seen, notes)
