import base64
import io

import numpy as np
from PIL import Image

from mmdet_lesion.visualization.html import mean_pixels, to_base64, webp


def test_images_are_close_to_the_gray_values():
    gray = np.add.outer(np.arange(40), np.arange(60)).astype(np.uint8)
    with Image.open(io.BytesIO(base64.b64decode(to_base64(webp(gray, 90))))) as image:
        assert image.format == "WEBP"
        found = np.asarray(image.convert("L"))
    assert abs(found.astype(int) - gray).mean() < 2


def test_reduced_slices_are_means():
    plane = np.array([[-1000, -1000, 40, 60], [-1000, -1001, 50, 50]], dtype=np.int16)
    np.testing.assert_array_equal(mean_pixels(plane, (2, 1)), [[-1000, 50]])
    assert mean_pixels(plane, (2, 1)).dtype == np.int16
