"""The slice thickness of each sample on its way to the backbone."""

from collections.abc import Iterator
from contextlib import contextmanager

from mmdet.structures import SampleList
from torch import Tensor

from ...errors import InputError


class ThicknessAware:
    """Mixed into a detector in front of mmdet's: a backbone that asks for it gets the thickness.

    A backbone with ``uses_thickness = True`` is called with (N,) thicknesses in mm, the metainfo
    ``thickness`` of the data samples, beside its inputs: the distance of the slices of the input,
    as ``LoadSliceStack`` and ``LoadVolumeSlices`` made it. Other backbones are called as ever.
    """

    _thickness: Tensor | None = None

    def loss(self, batch_inputs: Tensor, batch_data_samples: SampleList) -> dict:
        """As the detector's."""
        with self._thickness_of(batch_inputs, batch_data_samples):
            return super().loss(batch_inputs, batch_data_samples)

    def predict(
        self, batch_inputs: Tensor, batch_data_samples: SampleList, rescale: bool = True
    ) -> SampleList:
        """As the detector's."""
        with self._thickness_of(batch_inputs, batch_data_samples):
            return super().predict(batch_inputs, batch_data_samples, rescale)

    def extract_feat(self, batch_inputs: Tensor) -> tuple[Tensor]:
        """As the detector's."""
        if self._thickness is None:
            return super().extract_feat(batch_inputs)
        x = self.backbone(batch_inputs, self._thickness)
        return self.neck(x) if self.with_neck else x

    @contextmanager
    def _thickness_of(self, batch_inputs: Tensor, samples: SampleList) -> Iterator[None]:
        """Let :meth:`extract_feat` know the thicknesses of the batch at hand."""
        if not getattr(self.backbone, "uses_thickness", False):
            yield
            return
        for sample in samples:
            if "thickness" not in sample.metainfo:
                raise InputError(
                    f"{type(self).__name__}: the sample of {sample.metainfo.get('img_path')} has "
                    f"no 'thickness' in its metainfo, which {type(self.backbone).__name__} needs; "
                    "expected the mm between the input's slices, as PackLesionInputs packs it"
                )
        self._thickness = batch_inputs.new_tensor([sample.thickness for sample in samples])
        try:
            yield
        finally:
            self._thickness = None
