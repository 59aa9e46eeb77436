"""Volumes and their geometry, boxes, symmetries and tracklets."""

import lazy_loader

# Only boxes need torch.
__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "body": ["Body", "find_body"],
        "boxes": ["batched_nms3d", "box_containment3d", "box_iou3d", "box_volume3d", "nms3d"],
        "geometry": ["Geometry", "published_to_voxels", "resampled_shape", "voxels_to_published"],
        "hard_negatives": ["HARD_NEGATIVE_LABEL"],
        "symmetry": ["CUBE_SYMMETRIES", "CubeSymmetry"],
        "tracklets": ["Tracklets"],
        "volume": ["Volume"],
    },
)
