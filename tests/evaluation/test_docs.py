"""The page about evaluation names scores as files have them."""

import re

from tests.goldens import PROJECT_ROOT
from ttt3r.evaluation.results import METRICS

PAGE = (PROJECT_ROOT / "docs" / "evaluation.md").read_text("utf-8")
KEYS = {metric.key for metrics in METRICS.values() for metric in metrics}


def test_every_score_that_the_page_names_exists():
    """A sentence that says `scores.json` names its scores in code."""
    named = set(re.findall(r'metrics\["([^"]+)"\]', PAGE))
    for part in re.split(r"[.:;](?:\s|$)|\n\n|\n\* ", PAGE):
        if "`scores.json`" in part:
            words = set(re.findall(r"`([^`]+)`", " ".join(part.split()))) - {"scores.json"}
            assert words, part
            named |= words
    assert len(named) >= 8
    assert named <= KEYS
