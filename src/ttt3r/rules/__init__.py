"""Test-time update rules, as plug-ins.

A new rule is one file beside these and one line in `REGISTRY`, or a class of your own under
`register`; see ``docs/adding-a-rule.md``. What each rule computes is in ``docs/rules.md``.
"""

import re
from dataclasses import is_dataclass
from importlib.metadata import EntryPoint
from typing import Any, TypeVar

from ttt3r import values
from ttt3r.errors import SettingError
from ttt3r.rules.base import (
    Evidence,
    EvidenceKind,
    Rule,
    RuleMemory,
    RuleStep,
    advance,
    gated,
    taken,
)
from ttt3r.rules.brake import Brake
from ttt3r.rules.damped import Damped
from ttt3r.rules.filt3r import Filt3r
from ttt3r.rules.memix import Memix
from ttt3r.rules.ortho import Ortho
from ttt3r.rules.overwrite import Overwrite
from ttt3r.rules.paced import Paced
from ttt3r.rules.recal3r import Recal3r
from ttt3r.rules.split import Split, pose_memory_rule
from ttt3r.rules.ttsa3r import Ttsa3r
from ttt3r.rules.ttt3r import Ttt3r

REGISTRY = values.Registry(
    "rule",
    [
        Overwrite,
        Ttt3r,
        Damped,
        Ttsa3r,
        Memix,
        Filt3r,
        Recal3r,
        Brake,
        Ortho,
        Paced,
        Split,
    ],
    default=Ttt3r(),
    group="ttt3r.rules",
)

AnyRule = TypeVar("AnyRule")

# A class and where it is; what stands in quotation marks is left alone.
QUALIFIED = re.compile(
    r"""(?P<quoted>'[^']*'|"[^"]*")|(?P<module>[A-Za-z_][\w.]*):(?P<name>[A-Za-z_]\w*)"""
)


def parse(rule: Any = None) -> Rule:
    """Return a rule from its text (``"ttt3r"``, ``"damped(ttt3r, 0.5)"``) or as it is.

    Args:
        rule: None stands for "ttt3r".

    Raises:
        SettingError: if the text names no rule, or the value is not a registered one.
    """
    return REGISTRY.parse(rule)


def register(rule: AnyRule) -> AnyRule:
    """Make a rule of your own known by its `name`; a decorator.

    Sessions, saved files and the text form then know it. An installed package can do without:
    it names the class as an entry point of the group "ttt3r.rules", under the rule's name.

    Raises:
        SettingError: if it is not a frozen dataclass derived from `Rule`, or its name is taken.
    """
    cls: Any = rule
    if not isinstance(cls, type) or not issubclass(cls, Rule) or not is_dataclass(cls):
        raise SettingError(f"{rule!r} is not a dataclass derived from ttt3r.rules.Rule")
    if not getattr(cls, "__dataclass_params__").frozen:  # noqa: B009
        raise SettingError(f"{_place(cls)} must be frozen: write @dataclass(frozen=True)")
    name = getattr(cls, "name", None)
    if not isinstance(name, str) or not name.isidentifier():
        raise SettingError(f"{_place(cls)} needs a class attribute name, such as 'momentum'")
    known = REGISTRY.classes.get(name)
    if known is not None and _place(known) != _place(cls):
        raise SettingError(f"there is a rule called {name!r} already, {_place(known)}")
    REGISTRY.add(cls)
    return rule


def import_rules(text: str) -> str:
    """Import every rule that a text names as ``package.module:Class``, and call it by its name.

    ``"damped(mine:Momentum(keep=0.3), 0.5)"`` becomes ``"damped(momentum(keep=0.3), 0.5)"``, and
    `momentum` is registered. This runs code of the module, so it is for what a user types. Texts
    in files are read by `parse`, which imports nothing but entry points of installed packages.

    Raises:
        SettingError: if a module cannot be imported, or its class is not a rule.
    """

    def imported(match: re.Match[str]) -> str:
        if match["quoted"]:
            return match["quoted"]
        place = f"{match['module']}:{match['name']}"
        try:
            found = EntryPoint("", place, str(REGISTRY.group)).load()
        except Exception as error:
            raise SettingError(
                f"cannot import the rule {place}: {error}. Python must find the module: "
                "install its package, or name its folder in PYTHONPATH."
            ) from error
        return register(found).name

    return QUALIFIED.sub(imported, text)


def _place(rule: type) -> str:
    return f"{rule.__module__}:{rule.__qualname__}"


__all__ = [
    "REGISTRY",
    "Brake",
    "Damped",
    "Evidence",
    "EvidenceKind",
    "Filt3r",
    "Memix",
    "Ortho",
    "Overwrite",
    "Paced",
    "Recal3r",
    "Rule",
    "RuleMemory",
    "RuleStep",
    "Split",
    "Ttsa3r",
    "Ttt3r",
    "advance",
    "gated",
    "import_rules",
    "parse",
    "pose_memory_rule",
    "register",
    "taken",
]
