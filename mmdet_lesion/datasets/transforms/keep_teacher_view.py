"""Copy of the image for the mean teacher."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.errors import InputError


@TRANSFORMS.register_module()
class KeepTeacherView(BaseTransform):
    """Keep a copy of the image before it is resized and flipped for the student.

    ``homography_matrix`` is set to the identity. The geometric transforms that follow update it,
    so that it maps the teacher's view to the student's view.

    Required keys: ``img``.

    Added keys: ``teacher_img``, a copy of ``img``, and ``homography_matrix``.

    Raises:
        InputError: A geometric transform precedes it in the pipeline, so that ``hidden_bboxes``
            would not match the teacher's view, and the views of two epochs would not match each
            other. Recognized are transforms that record a homography, as MMDetection's do, and
            those that set ``flip``.
    """

    def transform(self, results: dict) -> dict:
        """Copy the image."""
        if "homography_matrix" in results or results.get("flip"):
            raise InputError(
                "KeepTeacherView follows a geometric transform in the pipeline; expected it before "
                "geometric transforms such as RandomRescale and RandomFlip"
            )
        results["teacher_img"] = np.copy(results["img"], order="K")
        results["homography_matrix"] = np.eye(3, dtype=np.float32)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
