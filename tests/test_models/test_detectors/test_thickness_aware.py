"""Tests that the slice thickness is passed from the data samples to the backbone."""

import pytest
import torch
from mmdet.registry import MODELS
from test_slice_faster_rcnn import image, sample, tiny_config

from mmdet_lesion.errors import InputError
from mmdet_lesion.models.semi_supervised import predict_teacher_views


def build(conv="align_shift"):
    from mmdet.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    cfg = tiny_config("early")
    cfg.backbone = dict(
        type="SliceMixingDenseNet",
        conv=conv,
        num_slices=7,
        growth_rate=4,
        block_config=(1, 1, 1),
        num_init_features=8,
    )
    torch.manual_seed(0)
    model = MODELS.build(cfg)
    model.init_weights()
    model.seen = []
    model.backbone.register_forward_pre_hook(lambda _, args: model.seen.append(args[1:]))
    return model


def seen(model):
    return [thickness.tolist() for (thickness,) in model.seen]


def test_loss_uses_the_thickness_of_each_image():
    model = build()
    box = [[10.0, 8.0, 30.0, 28.0]]
    data = dict(
        inputs=[image(7), image(7, seed=1)],
        data_samples=[sample(boxes=box, thickness=1.0), sample(boxes=box, thickness=5.0)],
    )
    losses = model(**model.data_preprocessor(data, True), mode="loss")
    assert seen(model) == [[1.0, 5.0]]
    assert all(torch.as_tensor(value).isfinite().all() for value in losses["loss_rpn_cls"])
    assert model._thickness is None


@torch.no_grad()
def test_predict_uses_the_thickness_of_the_volume():
    model = build().eval()
    model.chunk_size = 2
    volume = sample(slice_inds=[0, 2, 4], thickness=2.5)
    result = model.test_step(dict(inputs=[image(5)], data_samples=[volume]))[0]
    assert seen(model) == [[2.5, 2.5], [2.5]]
    assert set(result.pred_instances.slice_inds.tolist()) == {0, 2, 4}


@torch.no_grad()
def test_teacher_uses_the_thickness():
    model = build().eval()
    samples = [sample(thickness=1.0), sample(thickness=5.0)]
    predict_teacher_views(model, [image(7), image(7)], samples)
    assert seen(model) == [[1.0, 5.0]]


@torch.no_grad()
def test_thickness_changes_the_predictions():
    model = build().eval()
    scores = [
        predict_teacher_views(model, [image(7)], [sample(thickness=t)])[0].scores
        for t in (1.0, 20.0)
    ]
    assert not torch.equal(*scores)


@torch.no_grad()
def test_other_backbones_are_called_without_thickness():
    model = build("a3d").eval()
    predict_teacher_views(model, [image(7)], [sample()])
    assert model.seen == [()]


@torch.no_grad()
def test_missing_thickness():
    model = build().eval()
    with pytest.raises(InputError, match="the sample of here.b2nd has no 'thickness'"):
        model.test_step(dict(inputs=[image(7)], data_samples=[sample(img_path="here.b2nd")]))
    with pytest.raises(InputError, match="has no 'thickness'"):
        predict_teacher_views(model, [image(7)], [sample()])
