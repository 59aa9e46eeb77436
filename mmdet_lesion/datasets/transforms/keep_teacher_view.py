"""The image as the mean teacher sees it."""

from __future__ import annotations

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from mmdet_lesion.errors import InputError


@TRANSFORMS.register_module()
class KeepTeacherView(BaseTransform):
    """Keep the image before it is resized and flipped for the student.

    The homography that mmdet's transforms record from here on leads from the teacher's view to the
    student's; it starts as the identity, so that it is there when nothing changes the image.

    Required keys: ``img``.

    Added keys: ``teacher_img``, a copy of ``img``, and ``homography_matrix``.

    Raises:
        InputError: A geometric transform comes before it in the pipeline, so that
            ``hidden_bboxes`` would not fit the view.
    """

    def transform(self, results: dict) -> dict:
        """Copy the image."""
        if "homography_matrix" in results:
            raise InputError(
                "KeepTeacherView stands behind a geometric transform in the pipeline; expected it "
                "before RandomRescale, RandomFlip and the like"
            )
        results["teacher_img"] = np.copy(results["img"], order="K")
        results["homography_matrix"] = np.eye(3, dtype=np.float32)
        return results

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"
