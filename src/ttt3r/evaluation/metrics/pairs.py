"""How well the relative poses of all pairs of frames agree with the true ones.

The accuracies of relative rotation and translation (RRA, RTA) of Wang, Rupprecht and Novotny,
"PoseDiffusion", ICCV 2023, and the area under the curve of both (AUC@30, also called mAA(30)),
after Jin et al., "Image matching across wide baselines", IJCV 2021. Everything is an angle, so
nothing is aligned and no scale matters. Everything is computed in float64.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from ttt3r.errors import InputError, SettingError
from ttt3r.evaluation.metrics.trajectory import match

# Where the curve under which the area is taken ends, degrees.
LIMIT_DEG = 30.0
# A camera that moved by less than this part of the trajectory's extent stood still: the direction
# of so small a movement is rounding where poses are stored as float32.
STILL = 1e-6
# Between movements a sign apart the angle is at most this, so it is the error of one that is
# missing.
WORST_DIRECTION_DEG = 90.0


class PairAngles(NamedTuple):
    """Errors of the relative poses of some pairs of frames, degrees.

    Attributes:
        rotation: angle between the relative rotations [pairs], 0 to 180.
        translation: angle between the lines along which the second camera lies, as the first one
            sees it [pairs], 0 to 90; NaN where the true camera stood still.
    """

    rotation: Float[np.ndarray, " pairs"]
    translation: Float[np.ndarray, " pairs"]


@dataclass(frozen=True)
class PairAccuracy:
    """Fractions of the pairs of frames whose relative pose is right.

    Attributes:
        auc: AUC@30: the fraction of pairs whose larger error, of rotation and translation, is
            below k · 30°/bins, mean over k = 1 … bins.
        rra: fraction of pairs whose rotation error is below a threshold, by threshold in degrees.
        rta: fraction of moving pairs whose translation error is below a threshold, likewise.
        pairs: number of pairs of frames.
        moving: of these, the ones between which the true camera moved.
    """

    auc: float
    rra: Mapping[float, float]
    rta: Mapping[float, float]
    pairs: int
    moving: int


def pair_accuracy(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    thresholds: Sequence[float] = (5.0, 15.0, 30.0),
    valid: Bool[np.ndarray, " k"] | None = None,
    bins: int = 30,
) -> PairAccuracy:
    """Return how many of all pairs of frames i < j have the right relative pose.

    A pair between which the true camera stood still has no direction: it is left out of RTA, and
    in the AUC its rotation alone counts. An estimate that stands still where the true camera
    moved is wrong by 90°.

    Args:
        estimate: estimated ``world_from_camera`` [n, 4, 4], all finite. A similarity of its world
            changes nothing.
        truth: true ``world_from_camera`` of the same frames, [n, 4, 4].
        thresholds: of `PairAccuracy.rra` and `PairAccuracy.rta`, degrees.
        valid: frames [n] whose true pose is known; all if None. Pairs with others are left out.
        bins: into how many steps the 30 degrees of the AUC are divided. Published tables used 30
            or 31, which hardly differ over many pairs, but by a hundredth over six.

    Raises:
        InputError: as `pair_angles`, and if the true camera never moves.
        SettingError: if a threshold or `bins` is not positive.
    """
    if bins < 1:
        raise SettingError(f"bins is {bins}; the area needs at least one step")
    limits = np.array(thresholds, dtype=np.float64)
    if not (limits > 0.0).all():
        raise SettingError(f"the thresholds are {list(thresholds)}; give positive angles")
    steps = LIMIT_DEG * np.arange(1, bins + 1) / bins
    pairs = moving = 0
    area, rotation, translation = (np.zeros(len(edges)) for edges in (steps, limits, limits))
    for angles in pair_angles(estimate, truth, valid):
        pairs += len(angles.rotation)
        moving += int(np.isfinite(angles.translation).sum())
        area += _below(np.fmax(*angles), steps)  # of a number and NaN this is the number
        rotation += _below(angles.rotation, limits)
        translation += _below(angles.translation, limits)
    if not moving:
        raise InputError(
            "the true camera never moves, so there is no direction of movement to compare. "
            "Compare more frames, or rotations only with `pair_angles`."
        )
    return PairAccuracy(
        auc=float(area.mean() / pairs),
        rra=dict(zip(thresholds, (rotation / pairs).tolist(), strict=True)),
        rta=dict(zip(thresholds, (translation / moving).tolist(), strict=True)),
        pairs=pairs,
        moving=moving,
    )


def pair_angles(
    estimate: Float[np.ndarray, "n 4 4"],
    truth: Float[np.ndarray, "m 4 4"],
    valid: Bool[np.ndarray, " k"] | None = None,
) -> Iterator[PairAngles]:
    """Return the errors of all pairs of frames i < j, those of one i at a time.

    With relative poses P_i⁻¹ P_j, the rotation error is the angle of R_trueᵀ R_estimate, and the
    translation error the angle between t_true and t_estimate or −t_estimate, whichever is
    smaller: opposite directions count as the same. What is held grows with the frames and not
    with the pairs.

    Args:
        estimate: as in `pair_accuracy`.
        truth: as in `pair_accuracy`.
        valid: as in `pair_accuracy`.

    Raises:
        InputError: if the numbers of poses differ; a used pose is not a finite rigid transform;
            or fewer than two true poses are known.
    """
    matched = match(estimate, truth, valid)
    if matched.used.sum() < 2:
        raise InputError(
            "a relative pose needs at least two frames whose true pose is known. "
            "Compare more frames."
        )
    return _rows(matched.estimate[matched.used], matched.truth[matched.used])


def _rows(
    estimate: Float[np.ndarray, "n 4 4"], truth: Float[np.ndarray, "n 4 4"]
) -> Iterator[PairAngles]:
    # The angle of (R_iᵀ R_j)ᵀ (R̂_iᵀ R̂_j) is that of D_iᵀ D_j with D = R̂ Rᵀ: one product a frame.
    turned = estimate[:, :3, :3] @ truth[:, :3, :3].swapaxes(-1, -2)
    estimated, true = _positions(estimate), _positions(truth)
    for i in range(len(truth) - 1):
        yield PairAngles(
            rotation=_rotation_deg(turned[i], turned[i + 1 :]),
            translation=_translation_deg(
                (estimated[i + 1 :] - estimated[i]) @ estimate[i, :3, :3],
                (true[i + 1 :] - true[i]) @ truth[i, :3, :3],
            ),
        )


def _positions(poses: Float[np.ndarray, "n 4 4"]) -> Float[np.ndarray, "n 3"]:
    """Return positions since the first one, in units of their extent along an axis."""
    positions = poses[:, :3, 3] - poses[0, :3, 3]
    extent = np.abs(positions).max()
    return positions / extent if extent > 0.0 else positions


def _rotation_deg(
    one: Float[np.ndarray, "3 3"], others: Float[np.ndarray, "n 3 3"]
) -> Float[np.ndarray, " n"]:
    """Return the angles between rotations: |A − B|² = 8 sin²(θ/2), exact at small angles."""
    chords = np.linalg.norm(others - one, axis=(-2, -1))
    return np.degrees(2.0 * np.arcsin(np.minimum(chords / np.sqrt(8.0), 1.0)))


def _translation_deg(
    estimate: Float[np.ndarray, "n 3"], truth: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, " n"]:
    """Return the angles between lines: tan θ = |a × b| / |a · b|; see `PairAngles`."""
    across = np.linalg.norm(np.cross(estimate, truth), axis=-1)
    along = np.abs((estimate * truth).sum(-1))
    angles = np.degrees(np.arctan2(across, along))
    still, answered_still = (np.linalg.norm(moves, axis=-1) <= STILL for moves in (truth, estimate))
    return np.where(still, np.nan, np.where(answered_still, WORST_DIRECTION_DEG, angles))


def _below(
    angles: Float[np.ndarray, " n"], limits: Float[np.ndarray, " limits"]
) -> Int[np.ndarray, " limits"]:
    """Return how many angles are below each limit; NaN is below none."""
    return (angles[:, None] < limits).sum(0)
