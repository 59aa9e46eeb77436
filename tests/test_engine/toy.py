"""Toy detector with few weights and configurable predictions, and a runner."""

import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmengine.model import BaseModel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch import nn
from torch.utils.data import Dataset


@MODELS.register_module()
class ToyDetector(BaseModel):
    """Detector that regresses the mean of the boxes and always predicts ``predictions``."""

    predictions = (torch.zeros(0, 4), torch.zeros(0))

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.dropout = nn.Dropout(0.5)
        self.seen = []

    def forward(self, inputs, data_samples=None, mode="tensor", teacher_inputs=None):
        if isinstance(inputs, (list, tuple)):
            inputs = torch.stack(list(inputs))
        output = self.dropout(self.norm(self.conv(inputs))).mean(dim=(1, 2, 3))
        if mode == "loss":
            self.seen.append(data_samples)
            target = torch.stack([s.gt_instances.bboxes.tensor.sum() for s in data_samples]) / 100
            return dict(loss=((output - target) ** 2).mean())
        self.mode_at_prediction = self.training
        bboxes, scores = type(self).predictions
        pred = InstanceData(
            bboxes=bboxes.clone(), scores=scores.clone(), labels=torch.zeros(len(scores)).long()
        )
        return [DetDataSample(pred_instances=pred) for _ in inputs]


@DATASETS.register_module()
class ToyDataset(Dataset):
    """Noise images with one annotated box, flipped in the student's view."""

    metainfo = dict(classes=("lesion",))

    def __init__(self, size=7, teacher_view=True):
        self.size = size
        self.teacher_view = teacher_view

    def __len__(self):
        return self.size

    def __getitem__(self, index):
        image = torch.rand(3, 20, 20) + index
        # A horizontal flip of a 20-pixel image: x -> 20 - x.
        matrix = np.array([[-1.0, 0, 20], [0, 1, 0], [0, 0, 1]], dtype=np.float32)
        meta = dict(img_id=index, img_shape=(20, 20), homography_matrix=matrix)
        sample = DetDataSample(metainfo=meta)
        sample.set_metainfo(dict(hidden_bboxes=torch.tensor([[0.0, 0, 4, 4]])))
        sample.gt_instances = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor([[10.0, 10, 16, 16]])), labels=torch.tensor([0])
        )
        packed = dict(inputs=image.flip(-1), data_samples=sample)
        if self.teacher_view:
            packed["teacher_inputs"] = image
        return packed


def toy_runner(work_dir, hooks, iters=4, **overrides):
    """Build a runner with a resumable loop over the toy dataset."""
    settings = dict(
        model=dict(type="ToyDetector"),
        work_dir=str(work_dir),
        experiment_name=f"toy_{work_dir.name}_{torch.rand(1).item()}",
        train_dataloader=dict(
            batch_size=2,
            num_workers=0,
            sampler=dict(type="InfiniteSampler", shuffle=True),
            dataset=overrides.pop("dataset", dict(type="ToyDataset")),
            collate_fn=dict(type="pseudo_collate"),
        ),
        train_cfg=dict(type="ResumableIterBasedTrainLoop", max_iters=iters),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.05, momentum=0.9)),
        default_hooks=dict(
            checkpoint=dict(type="CheckpointHook", by_epoch=False, interval=2),
            logger=None,
            checkpoint_check=dict(type="CheckpointCheckHook"),
        ),
        custom_hooks=hooks,
        randomness=dict(seed=3),
        default_scope="mmdet",
        cfg=dict(model=overrides.pop("model_cfg", {})),
    )
    settings.update(overrides)
    return Runner(**settings)
