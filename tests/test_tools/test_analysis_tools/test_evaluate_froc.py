import csv
import json
import os
import pickle
import subprocess
import sys

import cv2
import numpy as np
import pytest

BOX = [10.0, 10, 29, 29]
MISS = [50.0, 50, 60, 60]


@pytest.fixture(scope="module")
def tool(load_tool):
    return load_tool("analysis_tools/evaluate_froc.py")


@pytest.fixture
def p3d(tmp_path):
    """Ground truth of 12 sub-volumes of 6 patients with one lesion each, and 2 detection files."""
    rng = np.random.default_rng(0)
    names = [f"{i // 2:06d}_01_{i % 2:02d}_000-009" for i in range(12)]
    truth = {name + ".annot": {3: [[*BOX, 3, 3]]} for name in names}
    (tmp_path / "gt.pkl").write_bytes(pickle.dumps(truth, 2))
    for file, share in (("good", 0.9), ("bad", 0.3)):
        found = {
            name: [[(3, [*(BOX if rng.random() < share else MISS), rng.random()])] for _ in "abc"]
            for name in names
        }
        (tmp_path / f"{file}.pkl").write_bytes(pickle.dumps(found, 2))
    return tmp_path


@pytest.fixture
def luna16(tmp_path):
    head = "seriesuid,coordX,coordY,coordZ,"
    nodules = "".join(f"{i},0,0,0,{4 + 3 * (i % 3)}\n" for i in range(8))
    (tmp_path / "gt.csv").write_text(head + "diameter_mm\n" + nodules)
    (tmp_path / "excluded.csv").write_text(head + "diameter_mm\n0,90,0,0,-1\n")
    (tmp_path / "series.csv").write_text("".join(f"{i}\n" for i in range(10)))
    detections = "".join(f"{i},{i % 5},0,0,0.{9 - i}\n" for i in range(10))
    (tmp_path / "detections.csv").write_text(head + "probability\n" + detections + "0,91,0,0,.5\n")
    return tmp_path


def luna16_args(folder, **files):
    names = {
        "gt": "gt",
        "excluded": "excluded",
        "series": "series",
        "detections": "detections",
    } | files
    pairs = ([f"--{key}", str(folder / f"{name}.csv")] for key, name in names.items())
    return ["--protocol", "luna16", *(word for pair in pairs for word in pair)]


def read(folder):
    return json.loads((folder / "metrics.json").read_text())


def csv_rows(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_all_figures_of_one_file(tool, p3d, capsys):
    out = p3d / "out"
    args = ["--protocol", "p3d", "--gt", str(p3d / "gt.pkl"), "--detections", str(p3d / "good.pkl")]
    assert tool.main([*args, "--out", str(out), "--bootstrap", "50", "--by", "patient"]) == 0
    text = capsys.readouterr().out
    for words in ("bootstrap mean", "95 % from", "AP", "good: 12 true positives", "0.125"):
        assert words in text
    found = read(out)
    assert found["counts"]["true_positives"] == 12
    assert set(found["sensitivity"]) == {"0.125", "0.25", "0.5", "1", "2", "4", "8", "16"}
    assert found["protocol"] == "p3d"
    assert found["settings"] == {"iou_thr": 0.5, "extrapolate": True}
    assert found["outside"] == [0.25, 0.5, 1, 2, 4, 8, 16]
    assert found["options"]["by"] == "patient"
    band = found["bootstrap"]["ap"]
    assert band["low"] <= band["mean"] <= band["high"]
    assert found["bootstrap"]["rounds"] == 50
    assert "cpm" not in found
    rows = csv_rows(out / "froc.csv")
    assert rows[0] == ["detections", "fps", "sensitivity", "threshold"]
    assert len(rows) == 1 + found["counts"]["detections"]
    assert len(csv_rows(out / "froc_bootstrap.csv")) == 1 + tool.CURVE_POINTS
    assert cv2.imread(str(out / "froc.png")).shape == (720, 960, 3)


def test_difference_of_two_files(tool, p3d, capsys):
    files = [str(p3d / "bad.pkl"), str(p3d / "good.pkl")]
    args = ["--protocol", "p3d", "--gt", str(p3d / "gt.pkl"), "--detections", *files, "--clamp"]
    assert tool.main([*args, "--bootstrap", "40", "--out", str(p3d / "out")]) == 0
    assert "good minus bad" in capsys.readouterr().out
    found = read(p3d / "out")["detections"]
    difference = found["good"]["difference_to_first"]["mean_sensitivity"]
    means = [found[name]["mean_sensitivity"] for name in ("bad", "good")]
    assert difference["difference"] == pytest.approx(means[1] - means[0])
    assert difference["low"] <= difference["mean"] <= difference["high"]
    assert 0 < difference["p_value"] <= 1
    assert "difference_to_first" not in found["bad"]
    assert found["bad"]["settings"]["extrapolate"] is False
    labels = {row[0] for row in csv_rows(p3d / "out/froc.csv")}
    assert labels == {"detections", "bad", "good"}
    # Without a bootstrap, no difference is printed.
    assert tool.main([*args, "--out", str(p3d / "plain")]) == 0
    plain = read(p3d / "plain")["detections"]["good"]
    assert plain["bootstrap"] is None
    assert "difference_to_first" not in plain
    assert not (p3d / "plain/froc_bootstrap.csv").exists()


def test_luna16_with_strata(tool, luna16, capsys):
    args = luna16_args(luna16)
    assert tool.main([*args, "--stratify", "size", "--out", str(luna16 / "out")]) == 0
    text = capsys.readouterr().out
    assert "CPM" in text
    assert text.index("< 6 mm (3)") < text.index("6-8 mm (3)") < text.index("> 8 mm (2)")
    found = read(luna16 / "out")
    assert found["cpm"] == found["mean_sensitivity"]
    assert found["counts"]["ignored"] == 1
    assert [part["counts"]["lesions"] for part in found["strata"].values()] == [3, 3, 2]
    assert tool.main([*args, "--bootstrap", "20", "--out", str(luna16 / "b")]) == 0
    assert set(read(luna16 / "b")["bootstrap"]["cpm"]) == {"mean", "low", "high"}


def test_redirected_output_is_not_truncated(tool, luna16, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    assert tool.main(luna16_args(luna16)) == 0
    assert "…" not in capsys.readouterr().out


def test_files_of_the_same_name_get_distinct_labels(tool, p3d):
    (p3d / "more").mkdir()
    (p3d / "more/good.pkl").write_bytes((p3d / "good.pkl").read_bytes())
    labels = tool.labels_of([p3d / "good.pkl", p3d / "more/good.pkl"])
    assert list(labels) == [str(p3d / "good.pkl"), str(p3d / "more/good.pkl")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"detections": "absent"}, "absent.csv does not exist; expected a CSV"),
        ({"detections": "gt"}, "gt.csv has no column 'probability'"),
        ({"series": "short"}, "detections.csv, line 5: seriesuid is '3'"),
    ],
)
def test_invalid_files_print_an_error(tool, luna16, capsys, change, message):
    (luna16 / "short.csv").write_text("0\n1\n2\n")
    assert tool.main(luna16_args(luna16, **change)) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clamp"], "--clamp is not an option of --protocol luna16"),
        (["--iou-thr", "0.5"], "--iou-thr is not an option of --protocol luna16"),
        (
            ["--stratify", "type"],
            "gt.csv does not have the type of its lesions; expected",
        ),
        (["--bootstrap", "5", "--by", "patient"], "does not name the patients of its scans"),
    ],
)
def test_options_of_other_protocols_and_missing_columns_print_an_error(
    tool, luna16, capsys, words, message
):
    assert tool.main([*luna16_args(luna16), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("words", [["--bootstrap", "0"], ["--iou-thr", "2"], ["--iou-thr", "x"]])
def test_invalid_numbers_are_rejected(tool, luna16, words):
    with pytest.raises(SystemExit) as stop:
        tool.main([*luna16_args(luna16), *words])
    assert stop.value.code == 2


class Malice:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("protocol", ["p3d", "box3d"])
@pytest.mark.parametrize("file", ["gt", "good"])
def test_malicious_pickles_are_not_executed(tool, p3d, capsys, protocol, file):
    (p3d / f"{file}.pkl").write_bytes(pickle.dumps({"a": Malice(p3d / "ran")}))
    (p3d / "boxes.pkl").write_bytes(pickle.dumps({"a": np.empty((0, 6))}))
    gt = p3d / ("boxes.pkl" if protocol == "box3d" and file == "good" else "gt.pkl")
    args = ["--protocol", protocol, "--gt", str(gt), "--detections", str(p3d / "good.pkl")]
    assert tool.main(args) == 2
    assert "posix.mkdir, which could run code" in capsys.readouterr().err
    assert not (p3d / "ran").exists()


def test_published_figures_from_the_command_line(root, lesion_data, tmp_path):
    folder = lesion_data / "deeplesion"
    command = [sys.executable, str(root / "tools/analysis_tools/evaluate_froc.py")]
    command += ["--protocol", "p3d", "--gt", str(folder / "harvester/Revised-Train100.pkl")]
    command += ["--detections", str(folder / "example_detections_train100.pkl")]
    command += ["--out", str(tmp_path)]
    subprocess.run(command, check=True, capture_output=True)
    found = read(tmp_path)
    assert found["ap"] == pytest.approx(0.607307065076, abs=1e-9)
    assert found["sensitivity"]["16"] == pytest.approx(0.764285714286, abs=1e-9)


def figures(folder):
    """Return the figures of a submission without its file names."""
    found = read(folder)
    return {key: found[key] for key in ("sensitivity", "mean_sensitivity", "counts", "outside")}


def points(folder):
    """The whole curve."""
    return [row[1:] for row in csv_rows(folder / "froc.csv")]


def in_parts(content, number):
    """Split a dict into as many dicts of neighboring keys."""
    keys = [list(part) for part in np.array_split(list(content), number)]
    return [{key: content[key] for key in part} for part in keys]


def test_pooled_parts_equal_one_file_p3d(tool, p3d):
    whole = pickle.loads((p3d / "good.pkl").read_bytes())
    files = [p3d / f"part{i}.pkl" for i in range(10)]
    for file, part in zip(files, in_parts(whole, 10), strict=True):
        file.write_bytes(pickle.dumps(part, 2))
    args = ["--protocol", "p3d", "--gt", str(p3d / "gt.pkl"), "--detections"]
    assert tool.main([*args, str(p3d / "good.pkl"), "--out", str(p3d / "whole")]) == 0
    assert tool.main([*args, *map(str, files), "--pool", "--out", str(p3d / "pooled")]) == 0
    assert figures(p3d / "pooled") == figures(p3d / "whole")
    assert read(p3d / "pooled")["ap"] == read(p3d / "whole")["ap"]
    assert points(p3d / "pooled") == points(p3d / "whole")
    assert read(p3d / "pooled")["files"] == list(map(str, files))


def test_pooled_parts_equal_one_file_box3d(tool, tmp_path, capsys):
    rng = np.random.default_rng(1)
    low = rng.uniform(0, 80, (24, 3))
    boxes = np.hstack([low, low + 20]).reshape(12, 2, 6)
    rows = boxes + rng.normal(0, 3, boxes.shape)
    rows = np.concatenate([rows, rng.random((12, 2, 1))], axis=2)
    names = [f"{i:06d}_01_01" for i in range(12)]
    (tmp_path / "gt.json").write_text(json.dumps(dict(zip(names, boxes.tolist()))))
    found = dict(zip(names, rows.tolist()))
    files = [tmp_path / f"part{i}.json" for i in range(10)]
    for file, part in zip([*files, tmp_path / "whole.json"], [*in_parts(found, 10), found]):
        file.write_text(json.dumps(part))
    args = ["--protocol", "box3d", "--gt", str(tmp_path / "gt.json"), "--detections"]
    assert tool.main([*args, str(tmp_path / "whole.json"), "--out", str(tmp_path / "whole")]) == 0
    assert tool.main([*args, *map(str, files), "--pool", "--out", str(tmp_path / "pooled")]) == 0
    assert figures(tmp_path / "pooled") == figures(tmp_path / "whole")
    assert read(tmp_path / "whole")["mean_sensitivity"] > 0
    assert "10 files pooled: " in capsys.readouterr().out


def test_pooled_parts_equal_one_file_slice(tool, tmp_path):
    box = dict(bbox=[10, 10, 20, 20])
    truth = dict(
        images=[dict(id=i, file_name=f"{i}.png") for i in range(12)],
        annotations=[dict(id=i, image_id=i, **box) for i in range(12)],
    )
    (tmp_path / "gt.json").write_text(json.dumps(truth))
    rng = np.random.default_rng(2)
    found = [
        dict(image_id=i, bbox=[10 + 3 * float(rng.normal()), 10, 20, 20], score=rng.random())
        for i in range(12)
        for _ in "abc"
    ]
    files = [tmp_path / f"part{i}.json" for i in range(10)]
    for i, file in enumerate(files):
        file.write_text(json.dumps([one for one in found if one["image_id"] % 10 == i]))
    (tmp_path / "whole.json").write_text(json.dumps(found))
    args = ["--protocol", "slice", "--gt", str(tmp_path / "gt.json"), "--detections"]
    assert tool.main([*args, str(tmp_path / "whole.json"), "--out", str(tmp_path / "whole")]) == 0
    assert tool.main([*args, *map(str, files), "--pool", "--out", str(tmp_path / "pooled")]) == 0
    assert figures(tmp_path / "pooled") == figures(tmp_path / "whole")
    assert points(tmp_path / "pooled") == points(tmp_path / "whole")


def split_by_scan(folder, parts, submission="detections.csv"):
    """Write a submission and its list of scans in parts; returns their arguments."""
    head, *rows = (folder / submission).read_text().splitlines()
    series, detections = [], []
    for i, part in enumerate(parts):
        own = [row for row in rows if row.split(",")[0] in set(part)]
        series.append(folder / f"series{i}.csv")
        detections.append(folder / f"part{i}.csv")
        series[-1].write_text("\n".join(part) + "\n")
        detections[-1].write_text("\n".join([head, *own]) + "\n")
    return ["--series", *map(str, series), "--detections", *map(str, detections)]


def test_pooled_parts_equal_one_file_luna16(tool, luna16):
    args = luna16_args(luna16)
    assert tool.main([*args, "--out", str(luna16 / "whole")]) == 0
    words = split_by_scan(luna16, [[str(i)] for i in range(10)])
    common = args[: args.index("--series")]
    assert tool.main([*common, *words, "--pool", "--out", str(luna16 / "pooled")]) == 0
    assert figures(luna16 / "pooled") == figures(luna16 / "whole")
    assert points(luna16 / "pooled") == points(luna16 / "whole")
    assert len(read(luna16 / "pooled")["options"]["series"]) == 10


@pytest.mark.parametrize("pool", [True, False])
def test_pooled_files_with_a_common_scan_print_an_error(tool, luna16, capsys, pool):
    words = split_by_scan(luna16, [["0", "1", "2"], ["2", "3"], [str(i) for i in range(4, 10)]])
    common = luna16_args(luna16)
    common = common[: common.index("--series")]
    assert tool.main([*common, *words, *["--pool"] * pool]) == 2 * pool
    errors = capsys.readouterr().err
    if pool:
        assert errors.count("\n") == 1
        assert "part0.csv and " in errors
        assert "part1.csv both contain detections of '2'; expected every scan in one" in errors


def test_published_luna16_result_as_one_file_and_in_ten_folds(tool, lesion_data, tmp_path):
    folder = lesion_data / "luna16"
    detections = folder / "submissions" / "deeplung_dpn26bs32.csv"
    common = ["--protocol", "luna16", "--gt", str(folder / "annotations.csv")]
    common += ["--excluded", str(folder / "annotations_excluded.csv")]
    whole = ["--series", str(folder / "seriesuids.csv"), "--detections", str(detections)]
    assert tool.main([*common, *whole, "--out", str(tmp_path / "whole")]) == 0
    found = read(tmp_path / "whole")
    expected = [0.6922, 0.7690, 0.8238, 0.8651, 0.8929, 0.9174, 0.9334]
    rates = ("0.125", "0.25", "0.5", "1", "2", "4", "8")
    assert [found["sensitivity"][rate] for rate in rates] == pytest.approx(expected, abs=5e-5)
    assert found["cpm"] == pytest.approx(0.841966, abs=5e-7)
    # The figures in DeepLung's table.
    printed = [0.692, 0.769, 0.824, 0.865, 0.893, 0.917, 0.933, 0.842]
    assert [round(found["sensitivity"][rate], 3) for rate in rates] == printed[:-1]
    assert round(found["cpm"], 3) == printed[-1]
    subsets = json.loads((folder / "subsets.json").read_text())
    parts = [[name for name, subset in subsets.items() if int(subset) == i] for i in range(10)]
    (tmp_path / "detections.csv").write_bytes(detections.read_bytes())
    words = split_by_scan(tmp_path, parts)
    assert tool.main([*common, *words, "--pool", "--out", str(tmp_path / "pooled")]) == 0
    assert figures(tmp_path / "pooled") == figures(tmp_path / "whole")
    assert points(tmp_path / "pooled") == points(tmp_path / "whole")
