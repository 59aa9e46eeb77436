"""Tests of loading torchvision's DenseNet weights."""

import http.server
import pickle
import threading

import pytest
import torch
from mmdet.registry import MODELS
from torchvision_densenet import forward, make_state_dict, to_old_names

from mmdet_lesion.errors import InputError
from mmdet_lesion.models.backbones.densenet_weights import inflate_stem, rename_torchvision_keys

NARROW = dict(growth_rate=4, block_config=(2, 1, 2), num_init_features=8, bn_size=2)
LAYOUT = dict(growth=4, blocks=(2, 1, 2, 1), stem=8, bottleneck=2, classes=3)


def build(checkpoint, **kwargs):
    init_cfg = dict(type="Pretrained", checkpoint=str(checkpoint), **kwargs.pop("init", {}))
    model = MODELS.build(dict(type="SliceDenseNet", init_cfg=init_cfg, **NARROW, **kwargs))
    model.init_weights()
    return model.eval()


@pytest.fixture
def weights():
    return make_state_dict(**LAYOUT)


@pytest.fixture
def save(tmp_path):
    def save(content, name="densenet121.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize(
    "variant",
    [
        lambda w: w,
        to_old_names,
        lambda w: {k.replace("features.", ""): v for k, v in w.items()},
        lambda w: {"module." + k: v for k, v in to_old_names(w).items()},
        lambda w: {"state_dict": w, "epoch": 3},
    ],
    ids=["today", "2017", "no prefix", "data parallel", "checkpoint"],
)
def test_three_slices_equal_torchvision(weights, save, variant):
    model = build(save(variant(weights)), num_slices=3)
    x = torch.randn(2, 3, 40, 64)
    torch.testing.assert_close(list(model(x)), forward(weights, x), atol=1e-4, rtol=1e-4)


def test_all_keys_of_densenet121_are_renamed_or_dropped():
    weights = to_old_names(make_state_dict())
    renamed, dropped = rename_torchvision_keys(weights)
    model = MODELS.build(dict(type="SliceDenseNet", num_slices=3))
    own = {k for k in model.state_dict() if not k.endswith("num_batches_tracked")}
    assert renamed.keys() == own
    assert len(renamed) + len(dropped) == len(weights)
    parts = {key.removeprefix("features.").split(".")[0] for key in dropped}
    assert parts == {"denseblock4", "norm5", "classifier", "transition3"}


def test_grouped_equals_the_2d_network_on_each_image(weights, save):
    model = build(save(weights), num_slices=9)
    x = torch.randn(2, 9, 32, 32)
    torch.testing.assert_close(
        list(model(x)), forward(weights, x.view(6, 3, 32, 32)), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize("num_slices", [3, 7, 9])
def test_inflated_stem_preserves_the_output_for_equal_slices(weights, save, num_slices):
    model = build(save(weights), num_slices=num_slices, fusion="early")
    gray = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(
        list(model(gray.expand(-1, num_slices, -1, -1))),
        forward(weights, gray.expand(-1, 3, -1, -1)),
        atol=1e-4,
        rtol=1e-4,
    )


def test_nine_slices_divide_the_stem_weights_by_three():
    weight = torch.randn(2, 3, 7, 7)
    assert torch.equal(inflate_stem(weight, 9), weight.repeat(1, 3, 1, 1) / 3)


def test_checkpoint_of_a_detector_restores_the_fusion(weights, save):
    trained = build(save(weights))
    torch.nn.init.normal_(trained.fusion.conv.weight)
    content = {f"backbone.{k}": v for k, v in trained.state_dict().items()}
    content["neck.laterals.0.weight"] = torch.zeros(1)
    again = build(save({"state_dict": content}, "own.pth"), init=dict(prefix="backbone"))
    for key, value in trained.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


@pytest.mark.parametrize(
    "damage, complaint",
    [
        (lambda w: w.update(extra=torch.zeros(1)), "unexpected extra"),
        (lambda w: w.pop("features.norm0.bias"), "missing norm0.bias"),
        (
            lambda w: w.update({"features.norm0.bias": torch.zeros(3)}),
            r"of another shape norm0.bias \(3,\) instead of \(8,\)",
        ),
    ],
)
def test_invalid_keys(weights, save, damage, complaint):
    damage(weights)
    with pytest.raises(InputError, match=rf"densenet121.pth .*SliceDenseNet: keys {complaint}$"):
        build(save(weights), num_slices=3)


def test_weights_of_another_network_give_a_short_message(save):
    with pytest.raises(InputError) as error:
        build(save({f"layer{i}.weight": torch.zeros(1) for i in range(300)}), num_slices=3)
    assert "and 295 more" in str(error.value) and len(str(error.value)) < 800


def test_files_without_weights(tmp_path, save):
    with pytest.raises(InputError, match="absent.pth does not exist"):
        build(tmp_path / "absent.pth")
    (tmp_path / "page.pth").write_text("<html>404</html>")
    with pytest.raises(InputError, match="page.pth cannot be loaded"):
        build(tmp_path / "page.pth")
    with pytest.raises(InputError, match="contains no state_dict of tensors"):
        build(save({"epoch": 3}))


def test_unsafe_pickle_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    (tmp_path / "evil.pth").write_bytes(pickle.dumps(Evil(), protocol=2))
    with pytest.raises(InputError, match="evil.pth cannot be loaded"):
        build(tmp_path / "evil.pth")
    assert not (tmp_path / "ran").exists()


def test_url_is_downloaded_once(weights, save, tmp_path, monkeypatch):
    path = save(weights)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(tmp_path))

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/{path.name}"
    try:
        build(url, num_slices=3)
    finally:
        server.shutdown()
        server.server_close()
    build(url, num_slices=3)
    with pytest.raises(InputError, match="other.pth cannot be downloaded .*init_cfg.checkpoint"):
        build(url.replace(path.name, "other.pth"))
