"""Readers of the datasets that the field measures on, in the layout their owners distribute."""

from ttt3r.errors import SettingError
from ttt3r.evaluation.datasets.base import Dataset
from ttt3r.evaluation.datasets.bonn import Bonn
from ttt3r.evaluation.datasets.folders import Folders
from ttt3r.evaluation.datasets.kitti import Kitti
from ttt3r.evaluation.datasets.nrgbd import Nrgbd
from ttt3r.evaluation.datasets.scannet import ScanNet
from ttt3r.evaluation.datasets.seven_scenes import SevenScenes
from ttt3r.evaluation.datasets.sintel import Sintel
from ttt3r.evaluation.datasets.synthetic import Synthetic
from ttt3r.evaluation.datasets.tum import TumDynamics

DATASETS: dict[str, type[Dataset]] = {
    kind.name: kind
    for kind in (
        TumDynamics,
        ScanNet,
        Sintel,
        Bonn,
        Kitti,
        SevenScenes,
        Nrgbd,
        Folders,
        Synthetic,
    )
}


def named(name: str) -> Dataset:
    """Return the reader of a dataset.

    Raises:
        SettingError: if there is none of this name.
    """
    if name not in DATASETS:
        raise SettingError(f"there is no dataset {name!r}; choose one of {', '.join(DATASETS)}")
    return DATASETS[name]()
