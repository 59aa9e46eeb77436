"""Fixtures of a converted dataset of two tiny volumes."""

import copy
import json

import numpy as np
import pytest

from mmdet_lesion.io.volume_store import save_volume
from mmdet_lesion.structures import Geometry, Volume

SPACING = (0.8, 0.8, 2.0)
SHAPES = {"000001_01_01_010-021": (12, 40, 48), "000002_01_01_001-006": (6, 32, 32)}


def _annotation(number, image_id, bbox, source, z=0):
    x, y, w, h = bbox
    return dict(
        id=number,
        image_id=image_id,
        category_id=1,
        bbox=bbox,
        area=w * h,
        iscrowd=0,
        source=source,
        lesion_type=-1,
        published_slice=z,
        published_bbox=[x + 1, y + 1, x + w, y + h],
    )


@pytest.fixture(scope="session")
def tiny_content():
    """Content of the annotation file: three images of the first volume, one of the second."""
    volumes = [
        dict(
            id=i + 1,
            name=name,
            file_name=f"{name}.b2nd",
            geometry=Geometry(shape, SPACING).to_dict(),
            first_slice=1,
            patient=name[:6],
        )
        for i, (name, shape) in enumerate(SHAPES.items())
    ]
    images = [
        dict(
            id=10 + i,
            file_name=volumes[v]["file_name"],
            volume=volumes[v]["name"],
            volume_id=v + 1,
            slice_index=k,
            height=volumes[v]["geometry"]["shape"][1],
            width=volumes[v]["geometry"]["shape"][2],
            spacing=list(SPACING),
        )
        for i, (v, k) in enumerate([(0, 7), (0, 1), (0, 4), (1, 5)])
    ]
    annotations = [
        _annotation(1, 10, [4.0, 6.0, 10.0, 8.0], "recist", z=7),
        _annotation(2, 10, [20.5, 16.0, 8.0, 8.0], "full", z=7),
        _annotation(3, 10, [1.0, 1.0, 3.0, 3.0], "hard_negative", z=7),
        _annotation(4, 11, [2.0, 3.0, 5.0, 6.0], "full", z=1),
        _annotation(5, 13, [9.0, 9.0, 7.0, 7.0], "recist", z=5),
    ]
    return dict(
        info={},
        categories=[dict(id=1, name="lesion")],
        volumes=volumes,
        images=images,
        annotations=annotations,
    )


@pytest.fixture(scope="session")
def tiny_arrays():
    """HU arrays by volume name."""
    rng = np.random.default_rng(0)
    return {
        name: rng.integers(-1500, 3500, shape).astype(np.int16) for name, shape in SHAPES.items()
    }


@pytest.fixture(scope="session")
def tiny_root(tmp_path_factory, tiny_content, tiny_arrays):
    """Folder with ``annotations/train.json`` and ``volumes/``."""
    root = tmp_path_factory.mktemp("deeplesion")
    for name, array in tiny_arrays.items():
        save_volume(root / "volumes" / f"{name}.b2nd", Volume(array=array, spacing=SPACING))
    (root / "annotations").mkdir()
    (root / "annotations" / "train.json").write_text(json.dumps(tiny_content))
    return root


@pytest.fixture
def write_annotations(tiny_root, tiny_content):
    """Write a modified copy of the content; return its path relative to the root."""

    def write(name, change):
        content = copy.deepcopy(tiny_content)
        content = change(content) or content
        path = tiny_root / "annotations" / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return f"annotations/{name}"

    return write
