"""Slice and volume detectors that find bright blobs, with known results."""

from types import SimpleNamespace

import torch
from mmdet.registry import MODELS
from mmengine import Config
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from scipy import ndimage
from torch import nn

from mmdet_lesion.models import FocalMix, SliceFasterRCNN

# Gray values 0 … 255 stand for -1000 … 1000 HU; blobs have at least 500 HU.
BRIGHT = 180


def boxes_of(mask):
    """Return half-open boxes of connected components, ``(n, 2 * dimensions)``, x first."""
    found = ndimage.find_objects(ndimage.label(mask.numpy())[0])
    rows = [[s.start for s in part[::-1]] + [s.stop for s in part[::-1]] for part in found]
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 2 * mask.dim())


def instances_of(image):
    """Return the boxes of the blobs with scores that increase with brightness."""
    boxes = boxes_of(image > BRIGHT)
    d = image.dim()
    scores = [
        image[tuple(slice(int(b[i]), int(b[d + i])) for i in reversed(range(d)))].max() / 255
        for b in boxes
    ]
    labels = torch.zeros(len(boxes), dtype=torch.long)
    return InstanceData(
        bboxes=boxes, scores=torch.tensor(scores, dtype=torch.float32), labels=labels
    )


def altered(instances, weight):
    """Add a model's weights, which are usually 0, to scores and boxes; drop scores below 0."""
    instances.scores = instances.scores + weight[0].detach()
    instances.bboxes = instances.bboxes + weight[1].detach()
    return instances[instances.scores >= 0]


@MODELS.register_module()
class BlobVolumes(FocalMix):
    """3D detector that returns blobs instead of predictions of a network."""

    def __init__(self, data_preprocessor=None):
        BaseModel.__init__(self, data_preprocessor)
        self.weight = nn.Parameter(torch.zeros(2))
        self.stride = 1
        self.batch_sizes = []

    def predict_patches(self, volume, size, batch_size=None, progress=None, **kwargs):
        self.batch_sizes.append(batch_size)
        return altered(instances_of(volume), self.weight)


@MODELS.register_module()
class BlobSlices(SliceFasterRCNN):
    """Slice detector that returns blobs instead of predictions of a network."""

    def __init__(self, data_preprocessor=None):
        BaseModel.__init__(self, data_preprocessor)
        self.weight = nn.Parameter(torch.zeros(2))
        self.backbone = SimpleNamespace(num_slices=9)
        self.batch_sizes = []

    def predict_slices(self, volume, data_sample, rescale=True, batch_size=None, **kwargs):
        self.batch_sizes.append(batch_size)
        found = []
        for z in data_sample.slice_inds:
            instances = instances_of(volume[z])
            # In pixels of the slices before resizing.
            instances.bboxes /= torch.tensor(data_sample.metainfo.get("scale_factor", (1, 1)) * 2)
            instances = altered(instances, self.weight)
            instances.slice_inds = torch.full((len(instances),), z)
            found.append(instances)
        return InstanceData.cat(found)


def blob_config(model, spacing=(1.0, 1.0, 1.0)):
    """Return a config with the usual test pipeline."""
    pipeline = [
        dict(type="LoadVolumeSlices", hu_window=(-1000, 1000)),
        dict(type="LoadLesionAnnotations", with_bbox=True),
        dict(type="PackLesionInputs"),
    ]
    return Config(
        dict(
            default_scope="mmdet",
            custom_imports=dict(imports=["tests.test_apis.blob_detectors"]),
            model=dict(type=model, data_preprocessor=dict(type="BaseDataPreprocessor")),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
            inference=dict(spacing=spacing),
        )
    )
