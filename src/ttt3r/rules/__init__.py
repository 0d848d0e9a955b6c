"""Test-time update rules, as plug-ins.

A new rule is one file beside these and one line in `REGISTRY`; see ``docs/adding-a-rule.md``.
"""

from ttt3r import values
from ttt3r.rules.base import Evidence, EvidenceKind, Memory, Rule, RuleStep, advance
from ttt3r.rules.damped import Damped
from ttt3r.rules.overwrite import Overwrite
from ttt3r.rules.ttt3r import Ttt3r

REGISTRY: dict[str, type] = {
    "overwrite": Overwrite,
    "ttt3r": Ttt3r,
    "damped": Damped,
}


def parse(rule: str | Rule) -> Rule:
    """Return a rule from its text (``"ttt3r"``, ``"damped(ttt3r, 0.5)"``) or as it is.

    Raises:
        SettingError: if the text names no rule.
    """
    return values.from_text(rule, REGISTRY, "rule") if isinstance(rule, str) else rule


__all__ = [
    "REGISTRY",
    "Damped",
    "Evidence",
    "EvidenceKind",
    "Memory",
    "Overwrite",
    "Rule",
    "RuleStep",
    "Ttt3r",
    "advance",
    "parse",
]
