"""Benchmarks of slice detectors at inference: speed compared with mmdet, and memory."""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import SimpleITK as sitk  # noqa: N813
import torch
from mmdet.models.detectors import FasterRCNN
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.structures import DetDataSample
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from rich.console import Console
from torch import nn

from mmdet_lesion import InputError
from mmdet_lesion.apis.detector import build_module, read_config
from mmdet_lesion.command_line import config_file, positive
from mmdet_lesion.structures import Volume
from mmdet_lesion.structures.hu_window import apply_hu_window

from .common import NINE_SLICES, ROOT, ct_like, seconds, table_of


def untrained_detector(config: Path, volume: torch.Tensor) -> nn.Module:
    """Build a detector with seeded random weights and nonzero, finite feature maps.

    Args:
        config: Config of the detector.
        volume: ``(D, H, W)`` normalized slices to estimate the batch norm statistics from.

    Raises:
        InputError: The config is not that of a slice detector.
    """
    cfg = read_config(config, keys=["model"]).model
    if cfg.get("type") != "SliceFasterRCNN":
        raise InputError(f"{config} has a {cfg.get('type')} as model; expected a SliceFasterRCNN")
    cfg.backbone.init_cfg = None
    init_default_scope("mmdet")
    torch.manual_seed(0)
    model = build_module(cfg, f"{config}: model")
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # Random heads yield scores near 0 or 1, whose order depends on rounding.
    head = model.roi_head.bbox_head
    for layer in (model.rpn_head.rpn_cls, model.rpn_head.rpn_reg, head.fc_cls, head.fc_reg):
        nn.init.normal_(layer.weight, std=1e-3)
    model.eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None
    middle = torch.tensor([len(volume) // 2])
    model.extract_feat(model.slice_stacks(volume, middle))
    return model.eval()


def predict_stack_by_stack(model: nn.Module, volume: torch.Tensor, chunk_size: int) -> InstanceData:
    """Predict all slices with mmdet's Faster R-CNN, each slice stack computed separately."""
    results = []
    for chunk in torch.arange(len(volume)).split(chunk_size):
        metainfo = slice_metainfo(volume)
        samples = [DetDataSample(metainfo=metainfo) for _ in chunk]
        stacks = model.slice_stacks(volume, chunk)
        for index, found in zip(chunk, FasterRCNN.predict(model, stacks, samples)):
            found.pred_instances.slice_inds = index.repeat(len(found.pred_instances))
            results.append(found.pred_instances)
    return InstanceData.cat(results)


def slice_metainfo(volume: torch.Tensor) -> dict:
    """Return the meta information of an image that was not resized."""
    shape = tuple(volume.shape[1:])
    return dict(img_shape=shape, ori_shape=shape, scale_factor=(1.0, 1.0))


@torch.inference_mode()
def measure_inference(
    config: Path, size: int, depth: int, repeats: int, threads: int
) -> tuple[float, dict[int, float]]:
    """Time inference with shared slice features and with separate slice stacks.

    The latter is mmdet's unmodified prediction with its own RoI extractor. Both run alternately on
    the same synthetic CT and must find the same boxes.

    Args:
        config: A config of a slice detector.
        size: Rows and columns.
        depth: Slices.
        repeats: Number of repeats.
        threads: Number of torch threads.

    Returns:
        Median seconds per slice with shared features, and a dict of those with separate stacks,
        keyed by the number of stacks in a forward pass: the model's ``chunk_size`` and 1.

    Raises:
        RuntimeError: The boxes differ.
    """
    torch.set_num_threads(threads)
    volume = (torch.from_numpy(apply_hu_window(ct_like(depth, size), (-1024, 3071))) - 50) / 50
    model = untrained_detector(config, volume)
    plain = copy.deepcopy(model)
    extractor = model.roi_head.bbox_roi_extractor
    plain.roi_head.bbox_roi_extractor = SingleRoIExtractor(
        dict(type="RoIAlign", output_size=extractor.roi_layers[0].output_size, sampling_ratio=0),
        extractor.out_channels,
        extractor.featmap_strides,
    )
    sample = DetDataSample(metainfo=dict(slice_metainfo(volume), slice_inds=range(depth)))
    shared_times: list[float] = []
    alone_times: dict[int, list[float]] = {model.chunk_size: [], 1: []}
    for _ in range(repeats):
        elapsed, shared = seconds(lambda: model.predict_slices(volume, sample))
        shared_times.append(elapsed / depth)
        for chunk, times in alone_times.items():
            elapsed, alone = seconds(lambda n=chunk: predict_stack_by_stack(plain, volume, n))
            times.append(elapsed / depth)
            if not same_boxes(shared, alone):
                raise RuntimeError(
                    f"{len(shared)} boxes with shared features and {len(alone)} with separate "
                    "stacks differ"
                )
    medians = {chunk: statistics.median(times) for chunk, times in alone_times.items()}
    return statistics.median(shared_times), medians


def same_boxes(one: InstanceData, other: InstanceData) -> bool:
    """Return whether two predictions have equal boxes and scores up to rounding, in any order."""
    if not torch.equal(one.slice_inds, other.slice_inds):
        return False
    for index in one.slice_inds.unique():
        mine, theirs = one[one.slice_inds == index], other[other.slice_inds == index]
        far = (mine.bboxes[:, None] - theirs.bboxes).abs().amax(2) / 0.01
        far = torch.maximum(far, (mine.scores[:, None] - theirs.scores).abs() / 1e-4)
        # Rounding may swap boxes with nearly equal scores.
        if (far.amin(1) > 1).any() or (far.amin(0) > 1).any():
            return False
    return True


def run_inference(options: argparse.Namespace) -> int:
    """Compare shared slice features with separate slice stacks."""
    shared, alone = measure_inference(
        options.config, options.size, options.depth, options.repeats, options.threads
    )
    title = (
        f"{options.config.name}, {options.size} x {options.size} x {options.depth}, "
        f"{options.threads} threads, median of {options.repeats}"
    )
    table = table_of(title, "slice stacks", "ms per slice", "relative")
    table.add_row("shared features", f"{1e3 * shared:.0f}", "1")
    for chunk, time_ in alone.items():
        table.add_row(
            f"separate, as in mmdet, {chunk} per forward pass",
            f"{1e3 * time_:.0f}",
            f"{time_ / shared:.2f}",
        )
    Console().print(table)
    return 0


def measure_memory(config: Path, size: int, depth: int, folder: Path) -> int:
    """Return the peak resident memory of ``tools/detect.py`` on a long scan, in bytes.

    The scan is a MetaImage of 0.7 x 0.7 x 1 mm. The detector is untrained and returns the maximum
    number of detections.

    Args:
        config: Config of the detector.
        size: Rows and columns.
        depth: Slices.
        folder: Where to write.
    """
    pattern = ct_like(32, size)
    hu = pattern[np.arange(depth) % len(pattern)]
    sitk.WriteImage(Volume(hu, (0.7, 0.7, 1.0)).to_sitk(), str(folder / "scan.mha"))
    few = (torch.from_numpy(apply_hu_window(pattern[:9, :128, :128], (-1024, 3071))) - 50) / 50
    with torch.inference_mode():
        model = untrained_detector(config, few)
    torch.save({"state_dict": model.state_dict()}, folder / "model.pth")
    command = ["tools/detect.py", folder / "scan.mha", "--config", config, "--checkpoint",
               folder / "model.pth", "--out", folder / "out", "--device", "cpu", "--export",
               "json,csv,slicer,nifti"]  # fmt: skip
    subprocess.run([sys.executable, *map(str, command)], check=True, cwd=ROOT)
    # Linux counts in KiB.
    return 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def run_memory(options: argparse.Namespace) -> int:
    """Measure the memory that a long scan needs."""
    with tempfile.TemporaryDirectory() as folder:
        peak = measure_memory(options.config, options.size, options.depth, Path(folder))
    Console().print(
        f"{options.config.name}, {options.size} x {options.size} x {options.depth}: peak "
        f"{peak / 1e9:.2f} GB"
    )
    return 0


def add_to(commands: argparse._SubParsersAction) -> None:
    """Add the commands to the command line."""
    inference = commands.add_parser(
        "inference", help="shared slice features against separate slice stacks, on a CPU"
    )
    inference.add_argument(
        "--config", type=config_file, default=NINE_SLICES, help="a slice detector's"
    )
    inference.add_argument("--size", type=positive, default=512, help="(default: 512)")
    inference.add_argument("--depth", type=positive, default=16, help="slices (default: 16)")
    inference.add_argument("--repeats", type=positive, default=3, help="turns (default: 3)")
    inference.add_argument("--threads", type=positive, default=torch.get_num_threads())
    inference.set_defaults(run=run_inference)
    memory = commands.add_parser("memory", help="peak memory of tools/detect.py, without a GPU")
    memory.add_argument(
        "--config", type=config_file, default=NINE_SLICES, help="a slice detector's"
    )
    memory.add_argument("--size", type=positive, default=512, help="(default: 512)")
    memory.add_argument("--depth", type=positive, default=1500, help="slices (default: 1500)")
    memory.set_defaults(run=run_memory)
