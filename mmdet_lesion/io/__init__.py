"""Reading and writing of files: volumes, tables, pickles, JSON, atomic writes."""

import lazy_loader

# Only volumes need blosc2 and SimpleITK.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "atomic": ["atomic_write", "leftover_of", "read_json", "write_json"],
        "boxes3d": ["read_boxes3d_detections", "read_boxes3d_truth"],
        "candidates": [
            "DECISIONS",
            "KINDS",
            "Candidate",
            "Candidates",
            "Decisions",
            "read_candidates",
            "read_decisions",
            "write_candidates",
        ],
        "coco": [
            "LESION_SOURCES",
            "SOURCES",
            "CocoBoxes",
            "CocoBuilder",
            "StoredEntry",
            "published_bbox",
            "read_annotation_file",
            "read_coco_boxes",
            "read_coco_results",
        ],
        "data_list": ["data_list_file", "read_data_list", "scan_entry"],
        "dl_info": ["COLUMNS", "LESION_TYPES", "DLInfoRow", "read_dl_info", "write_dl_info"],
        "harvester": [
            "GroundTruth",
            "read_detections",
            "read_ground_truth",
            "write_detections",
            "write_ground_truth",
        ],
        "luna16": [
            "read_luna16_findings",
            "read_luna16_detections",
            "read_luna16_series",
            "write_luna16_detections",
            "write_luna16_series",
        ],
        "metaimage": [
            "MetaImageError",
            "check_metaimage",
            "metaimage_data_file",
            "read_metaimage",
            "write_metaimage",
        ],
        "problems": ["Problem"],
        "safe_pickle": ["load_pickle"],
        "volume_store": ["SUFFIX", "StoredVolume", "load_volume", "open_volume", "save_volume"],
    },
)
