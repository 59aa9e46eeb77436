import cv2
import pytest
from matplotlib.figure import Figure
from sweeps.plot import SweepLine, plot_sweep


@pytest.fixture
def figure(monkeypatch):
    """List of the saved figures."""
    saved = []
    save = Figure.savefig
    monkeypatch.setattr(
        Figure, "savefig", lambda self, *args, **kw: saved.append(self) or save(self, *args, **kw)
    )
    return saved


def line(label, x, mean, spread=None):
    return SweepLine(label, x, mean, spread or [0.0] * len(x))


def texts(ticks):
    return [tick.get_text() for tick in ticks]


def test_one_panel_with_baselines(figure, tmp_path):
    lines = {
        "cpm": [line("cpm", [400, 100], [87.2, 83.0], [1.0, 2.0])],
        "ap": [line("ap", [400, 100], [80.0, 70.0])],
    }
    plot_sweep(lines, tmp_path / "plot.png", "indices", {"cpm": ("supervised", 82.8)})
    assert cv2.imread(str(tmp_path / "plot.png")).shape == (720, 960, 3)
    (axes,) = figure[0].axes
    assert axes.get_xlabel() == "indices"
    assert axes.get_ylabel() == "metric (%), mean ± standard deviation over seeds"
    assert texts(axes.get_xticklabels()) == ["100", "400"]
    assert set(texts(axes.get_legend().get_texts())) == {"cpm", "ap", "supervised: cpm"}


def test_panel_for_each_metric_with_non_numeric_values(figure, tmp_path):
    lines = {name: [line("K=1", ["a", None], [1, 2]), line("K=2", [None], [3])] for name in "mn"}
    plot_sweep(lines, tmp_path / "plot.png", "key", one_panel=False)
    assert [axes.get_ylabel() for axes in figure[0].axes] == ["m (%)", "n (%)"]
    assert texts(figure[0].axes[0].get_xticklabels()) == ["a", "None"]


@pytest.mark.parametrize(("values", "scale"), [([0.0002, 0.02], "log"), ([0, 100], "linear")])
def test_wide_positive_ranges_are_logarithmic(figure, tmp_path, values, scale):
    plot_sweep({"ap": [line("ap", values, [1, 2])]}, tmp_path / "plot.png", "lr")
    (axes,) = figure[0].axes
    assert axes.get_xscale() == scale
    assert texts(axes.get_xticklabels()) == [f"{value:g}" for value in values]


def test_no_lines_raise(tmp_path):
    with pytest.raises(ValueError, match="got no line"):
        plot_sweep({"ap": []}, tmp_path / "plot.png", "lr")
