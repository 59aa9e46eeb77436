"""Lesions of real shape in real scans, with complete truth."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "appearance": ["Appearance"],
        "dataset": ["PlantedDataset", "PlantingResult"],
        "library": ["ShapeLibrary", "read_shapes"],
        "noise": ["NoiseModel", "estimate_noise"],
        "plant": [
            "Background",
            "PlantedLesion",
            "PlantedScan",
            "PlantingSettings",
            "plant_lesion",
            "plant_lesions",
            "study_background",
        ],
        "point_spread": ["estimate_point_spread"],
        "shapes": ["LesionShape", "shape_from_contours", "shape_from_mask"],
        "tissue": ["TISSUES", "TissueMap", "find_tissue"],
        "zero_contrast": ["Discrimination", "discriminate", "zero_contrast_pairs"],
    },
)
