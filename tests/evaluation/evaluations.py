"""Evaluations that nobody has run, for the tests of what is made from them."""

import dataclasses

from ttt3r.evaluation.results import (
    METRICS,
    Evaluation,
    Score,
    SequenceScores,
    Settings,
)

POSE = Settings(
    task="pose",
    protocol="scannet/stride3/1000",
    variant="published",
    data="scannet",
    lengths=(90,),
    model="cut3r_512_dpt_4_64",
    fingerprint="0123abcd" * 8,
    rule="ttt3r",
    reset="never",
    size=512,
    precision="float32",
)
FACTS = {"ttt3r": "0.1.0", "commit": "abc1234", "torch": "2.6.0", "processor": "a | b_c"}


def metrics_of(task, value):
    """Every metric of a task, made from one number; the ATE is that number."""
    return {
        metric.key: value if i == 0 else min(0.99, value * 0.5)
        for i, metric in enumerate(METRICS[task])
    }


def score(settings, length, value, **changes):
    """A value is a score; "dropped: why" and "failed: why" are none."""
    frames = 77 if length is None else length
    if isinstance(value, str):
        status, _, note = value.partition(": ")
        return Score(length, frames, status, {}, note)
    made = Score(length, frames, "ok", metrics_of(settings.task, value), frames_per_second=8.0)
    return dataclasses.replace(made, **changes)


def evaluation(values, settings=POSE, facts=FACTS, weights=None, complete=True, **changes):
    """Build an evaluation.

    Args:
        values: of each sequence that is done, one value for each length; see `score`.
        settings: to start from.
        facts: as they are.
        weights: of sequences in the mean, by name.
        complete: whether these are all that count.
        changes: to the settings.
    """
    settings = dataclasses.replace(settings, **changes)
    weights = weights or {}
    done = tuple(
        SequenceScores(
            name,
            (384, 512),
            tuple(
                score(settings, length, value)
                if isinstance(value, str)
                else score(settings, length, value, weight=weights.get(name, 1.0))
                for length, value in zip(settings.lengths, row, strict=True)
            ),
            peak_memory=3 * 2**30,
            seconds=90.0,
            facts=facts,
        )
        for name, row in values.items()
    )
    return Evaluation(settings, done, complete)


def pair():
    """Two rules on three sequences at two lengths, one of them dropped and one failed."""
    both = {"lengths": (90, 500)}
    return (
        evaluation(
            {"a_00": [0.1, 0.4], "b_00": [0.2, 0.6], "c_00": [0.3, "dropped: 2 poses unknown"]},
            rule="overwrite",
            **both,
        ),
        evaluation(
            {"a_00": [0.05, 0.2], "b_00": [0.2, 0.7], "c_00": [0.1, "dropped: 2 poses unknown"]},
            **both,
        ),
    )
