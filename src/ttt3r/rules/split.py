"""One rule for the state and another for the pose memory."""

from dataclasses import dataclass
from typing import ClassVar

from ttt3r.errors import SettingError
from ttt3r.rules.base import EvidenceKind, Rule
from ttt3r.rules.overwrite import Overwrite
from ttt3r.rules.several import Several
from ttt3r.rules.wrapping import Wrapping

# What the pose memory can tell: its slots attend to one entry per frame, and to no patches.
TOLD: frozenset[EvidenceKind] = frozenset({"mean_logit"})


@dataclass(frozen=True)
class Split(Wrapping):
    """The state follows one rule, the pose memory another.

    Every published rule writes the pose memory whole (CUT3R, section 3.2). Here its slots are
    tokens like the state's: what the writer makes of them is the candidate, and the mean logit
    is that of the slots' attention to the frame's entry, over the writer's layers and heads.

    Args:
        rule: of the state.
        pose_memory: of the pose memory; one that reads nothing but the mean logit.

    Raises:
        SettingError: if the pose memory cannot give what its rule reads.
    """

    rule: Rule
    pose_memory: Rule

    name: ClassVar[str] = "split"
    outermost: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        asked = self.pose_memory.evidence - TOLD
        if asked:
            raise SettingError(
                f"the pose memory cannot follow {self.pose_memory.name}, which reads "
                f"{', '.join(sorted(asked))}: it gives {', '.join(TOLD)} only"
            )
        if isinstance(self.pose_memory, Split):
            raise SettingError("split must be outermost, not the rule of the pose memory")


def pose_memory_rule(rule: Rule) -> Rule:
    """Return how the pose memory is written: whole, unless told otherwise."""
    if isinstance(rule, Several):
        return Several(tuple(pose_memory_rule(part) for part in rule.parts))
    return rule.pose_memory if isinstance(rule, Split) else Overwrite()
