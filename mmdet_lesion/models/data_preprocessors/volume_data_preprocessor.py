"""Data preprocessor for volumes."""

from typing import Union

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseDataPreprocessor
from torch import Tensor

from ...errors import InputError


@MODELS.register_module()
class VolumeDataPreprocessor(BaseDataPreprocessor):
    """Data preprocessor that stacks volumes into a batch on the device of the model.

    Training patches, labeled and unlabeled, must have the same size. Test volumes are padded at
    the end of each axis to a common size divisible by ``size_divisor``; box coordinates do not
    change.

    Args:
        size_divisor: Largest stride of the detector.
        pad_value: Gray value of the padding after the HU window; 0 is air.
        non_blocking: Whether to copy to the device asynchronously.
    """

    def __init__(
        self, size_divisor: int = 16, pad_value: float = 0.0, non_blocking: bool = False
    ) -> None:
        super().__init__(non_blocking)
        self.size_divisor = size_divisor
        self.pad_value = pad_value

    def forward(self, data: dict, training: bool = False) -> Union[dict, list]:
        """Stack a batch.

        Args:
            data: ``inputs``, a list of N tensors (1, D, H, W), and ``data_samples``.
            training: Whether the inputs are training patches of the same size, without padding.

        Returns:
            ``inputs`` (N, 1, D, H, W) float32, and ``data_samples`` with ``batch_input_shape``
            (D, H, W) in their metainfo.

        Raises:
            InputError: An input does not have the shape (1, D, H, W), or training patches differ
                in size.
        """
        data = self.cast_data(data)
        inputs, samples = data["inputs"], data.get("data_samples")
        for volume in inputs:
            if volume.ndim != 4 or volume.shape[0] != 1:
                raise InputError(
                    f"VolumeDataPreprocessor: an input has shape {tuple(volume.shape)}; expected "
                    "(1, D, H, W)"
                )
        if training:
            sizes = sorted({tuple(volume.shape[1:]) for volume in inputs})
            if len(sizes) > 1:
                raise InputError(
                    f"VolumeDataPreprocessor: a batch has patches of sizes {sizes[0]} and "
                    f"{sizes[-1]}; expected the same size in the pipelines of all datasets"
                )
            batch = torch.stack(list(inputs)).float()
        else:
            batch = self.pad_and_stack(inputs)
        if samples is not None:
            for sample in samples:
                sample.set_metainfo(dict(batch_input_shape=tuple(batch.shape[2:])))
        return dict(inputs=batch, data_samples=samples)

    def pad_and_stack(self, volumes: list[Tensor]) -> Tensor:
        """Pad volumes (1, D, H, W) to the smallest valid common size and stack them as float32."""
        size = [
            -(-max(volume.shape[axis] for volume in volumes) // self.size_divisor)
            * self.size_divisor
            for axis in (1, 2, 3)
        ]
        padded = []
        for volume in volumes:
            missing = [want - have for want, have in zip(size, volume.shape[1:])]
            # F.pad expects the padding of the last axis first.
            pad = [amount for extra in reversed(missing) for amount in (0, extra)]
            padded.append(F.pad(volume.float(), pad, value=self.pad_value))
        return torch.stack(padded)
