"""P3D evaluation of nested lists in Lesion Harvester's layout."""

from mmdet_lesion.evaluation import functional
from mmdet_lesion.io import harvester
from mmdet_lesion.structures import Tracklets


def to_arrays(detections):
    return {name: Tracklets.from_harvester(found) for name, found in detections.items()}


def p3d_froc(detections, truth, **settings):
    return functional.p3d_froc(to_arrays(detections), truth, **settings)


def write_detections(path, detections):
    harvester.write_detections(path, to_arrays(detections))
