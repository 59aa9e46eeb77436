import numpy as np
import pytest
import torch

from mmdet_lesion.apis import LesionInferencer

from .blob_detectors import blob_config


@pytest.fixture(scope="session")
def blob_checkpoint(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "blob.pth"
    torch.save({"state_dict": {"weight": torch.zeros(2)}, "meta": {}}, path)
    return path


@pytest.fixture
def write_checkpoint(tmp_path):
    """Function that writes a checkpoint of a blob detector that adds to its scores and boxes."""

    def write(name, score=0.0, shift=0.0, **meta):
        path = tmp_path / f"{name}.pth"
        torch.save({"state_dict": {"weight": torch.tensor([score, shift])}, "meta": meta}, path)
        return path

    return write


@pytest.fixture(params=["BlobSlices", "BlobVolumes"], ids=["slices", "patches"])
def family(request):
    return request.param


@pytest.fixture
def inferencer(family, blob_checkpoint):
    return LesionInferencer(blob_config(family), blob_checkpoint, "cpu")


@pytest.fixture
def two_blobs():
    """HU ``(24, 30, 36)`` of tissue with a blob of 900 HU and a darker, thinner one."""
    hu = np.full((24, 30, 36), 40, dtype=np.int16)
    # More different values than a label map has.
    hu[:, 0] = -1000 + np.arange(24 * 36).reshape(24, 36) % 300
    hu[4:10, 8:14, 20:28] = 900
    hu[15:17, 18:22, 5:11] = 600
    return hu


#: ``[x1, y1, z1, x2, y2, z2]`` of both blobs, the brighter first.
BOXES = [[20, 8, 4, 28, 14, 10], [5, 18, 15, 11, 22, 17]]
