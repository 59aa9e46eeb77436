import numpy as np
import SimpleITK as sitk  # noqa: N813

from mmdet_lesion.structures import Volume
from tests.test_synthesis.test_planting.conftest import make_chest


def test_summary(load_tool, tmp_path, capsys):
    tool = load_tool("analysis_tools/check_planting.py")
    mask = np.zeros((12, 16, 16), np.uint8)
    mask[1:11, 2:14, 2:14] = 1
    sitk.WriteImage(Volume(mask, (1.4, 1.4, 1.6)).to_sitk(), str(tmp_path / "mask.nii.gz"))
    words = []
    for seed in range(2):
        words.append(str(tmp_path / f"p{seed}.nii.gz"))
        chest = make_chest(seed, (16, 64, 64), lungs=False)
        sitk.WriteImage(chest.to_sitk(), words[-1])
    shapes = ["--shapes", str(tmp_path / "mask.nii.gz"), "--places", "2"]
    assert tool.main([*words, *shapes]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("p0") and lines[0].endswith(": 2 and 2 places")
    assert lines[2].startswith("contrast added                  AUC 0.")
    assert len(lines) == 5 and "4 places; most telling alone: " in lines[4]
    assert tool.main([words[0], *shapes[:-1], "1"]) == 2
    error = capsys.readouterr().err
    assert "1 scan(s) have homogeneous soft tissue" in error and error.count("\n") == 1
