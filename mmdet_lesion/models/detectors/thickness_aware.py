"""Mixin for detectors whose backbone depends on the slice thickness."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.structures import SampleList
from torch import Tensor

from ...errors import InputError


class ThicknessAware:
    """Mixin that passes the slice thickness to the backbone; listed before mmdet's detector.

    A backbone with ``uses_thickness = True`` is called with the thicknesses in mm, shape (N,), as
    its second argument. They are the ``thickness`` in the metainfo of the data samples: the
    distance between the slices of the input, as set by ``LoadSliceStack`` and
    ``LoadVolumeSlices``. Other backbones are called without it.
    """

    _thickness: Tensor | None = None

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """Compute the losses of the detector."""
        with self._thickness_of(batch_inputs, batch_data_samples):
            return super().loss(batch_inputs, batch_data_samples)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """Predict with the detector."""
        with self._thickness_of(batch_inputs, batch_data_samples):
            return super().predict(batch_inputs, batch_data_samples, rescale)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor]:
        """Compute the feature maps of the detector."""
        if self._thickness is None:
            return super().extract_feat(batch_inputs)
        x = self.backbone(batch_inputs, self._thickness)
        return self.neck(x) if self.with_neck else x

    @contextmanager
    def _thickness_of(self, batch_inputs: Tensor, samples: SampleList) -> Iterator[None]:
        """Set the thicknesses that :meth:`extract_feat` uses within the context."""
        if not getattr(self.backbone, "uses_thickness", False):
            yield
            return
        for sample in samples:
            if "thickness" not in sample.metainfo:
                raise InputError(
                    f"{type(self).__name__}: the sample of {sample.metainfo.get('img_path')} has "
                    f"no 'thickness' in its metainfo, which {type(self.backbone).__name__} needs; "
                    "expected the distance between the slices of the input in mm, as "
                    "PackLesionInputs packs it"
                )
        self._thickness = batch_inputs.new_tensor([sample.thickness for sample in samples])
        try:
            yield
        finally:
            self._thickness = None
