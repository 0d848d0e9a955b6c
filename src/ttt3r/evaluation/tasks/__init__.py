"""What is measured: camera poses, depth, points. One recorder each, fed frame by frame."""

from ttt3r.evaluation.datasets.base import Task
from ttt3r.evaluation.tasks.base import Outcome, Recorder
from ttt3r.evaluation.tasks.depth import DepthRecorder
from ttt3r.evaluation.tasks.pose import PoseRecorder
from ttt3r.evaluation.tasks.recon import ReconRecorder

__all__ = ["RECORDERS", "Outcome", "Recorder"]

RECORDERS: dict[Task, type[Recorder]] = {
    "pose": PoseRecorder,
    "depth": DepthRecorder,
    "recon": ReconRecorder,
}
