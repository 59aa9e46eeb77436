import pytest


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("analysis_tools/backbone_complexity.py")


@pytest.fixture
def configs(root):
    names = ("faster_rcnn_3slice", "align_shift_7slice", "a3d_7slice")
    return [root / "configs" / "partial_label" / f"{name}.py" for name in names]


def test_complexity_of_3d_layers_matches_the_formulas(tool, configs):
    (flat, flat_adds), (shift, shift_adds), (a3d, a3d_adds) = (
        tool.complexity(config, (64, 64)) for config in configs
    )
    blocks = [
        [width + 32 * i + 128 for i in range(n)] for width, n in ((64, 6), (128, 12), (256, 24))
    ]
    pixels = [16 * 16, 8 * 8, 4 * 4]
    channels = [256, 512, 1024]
    assert a3d - shift == 49 * sum(map(sum, blocks))
    assert a3d_adds - shift_adds == 49 * sum(n * sum(b) for n, b in zip(pixels, blocks))
    stem, reductions = 64 * 49, 7 * sum(c * c for c in channels)
    assert shift - flat == reductions - 2 * stem
    reducing = 7 * sum(c * c * n for c, n in zip(channels, pixels))
    assert shift_adds - reducing == 7 * (flat_adds - 2 * stem * 32 * 32)


def test_table_has_a_row_for_each_config(tool, configs, capsys):
    assert tool.main([*map(str, configs[:1]), "--shape", "32", "32"]) == 0
    text = capsys.readouterr().out
    assert "faster_rcnn_3slice" in text and "4.27" in text and "Unsupported" not in text
