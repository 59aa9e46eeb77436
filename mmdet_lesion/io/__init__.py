"""Files in and out: the volume store, published tables, pickles and JSON, atomic writes."""

from .atomic import atomic_write, leftover_of, read_json, write_json
from .boxes3d import read_boxes3d_detections, read_boxes3d_truth
from .coco_boxes import CocoBoxes, read_coco_boxes, read_coco_results
from .dl_info import COLUMNS, LESION_TYPES, DLInfoRow, read_dl_info, write_dl_info
from .harvester import (
    Detections,
    GroundTruth,
    read_boxes3d,
    read_detections,
    read_ground_truth,
    write_detections,
    write_ground_truth,
)
from .luna16 import (
    read_luna16_findings,
    read_luna16_marks,
    read_luna16_series,
    write_luna16_marks,
    write_luna16_series,
)
from .metaimage import (
    MetaImageError,
    MetaImageHeader,
    read_metaimage,
    read_metaimage_header,
    write_metaimage,
)
from .problems import Problem
from .safe_pickle import load_pickle
from .volume_store import SUFFIX, StoredVolume, load_volume, open_volume, save_volume

__all__ = [
    "COLUMNS",
    "LESION_TYPES",
    "SUFFIX",
    "CocoBoxes",
    "DLInfoRow",
    "Detections",
    "GroundTruth",
    "MetaImageError",
    "MetaImageHeader",
    "Problem",
    "StoredVolume",
    "atomic_write",
    "leftover_of",
    "load_pickle",
    "load_volume",
    "open_volume",
    "read_boxes3d",
    "read_boxes3d_detections",
    "read_boxes3d_truth",
    "read_coco_boxes",
    "read_coco_results",
    "read_detections",
    "read_dl_info",
    "read_ground_truth",
    "read_json",
    "read_luna16_findings",
    "read_luna16_marks",
    "read_luna16_series",
    "read_metaimage",
    "read_metaimage_header",
    "save_volume",
    "write_detections",
    "write_dl_info",
    "write_ground_truth",
    "write_json",
    "write_luna16_marks",
    "write_luna16_series",
    "write_metaimage",
]
