import json
from io import StringIO

import pytest
from rich.console import Console

from mmdet_lesion.converters import ConversionReport, StrictError
from mmdet_lesion.io import Problem

PROBLEMS = [
    Problem("b.csv", 3, "x is wrong", "row skipped", "bad row"),
    Problem("a.png", None, "x is missing", "slice skipped", "missing PNG"),
    Problem("b.csv", 2, "y is wrong", "row skipped", "bad row"),
]


def test_report_does_not_depend_on_the_order_of_problems(tmp_path):
    for name, problems in (("a.json", PROBLEMS), ("b.json", PROBLEMS[::-1])):
        report = ConversionReport()
        report.add(problems)
        report.write(tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["counts"]["problems"] == {"bad row": 2, "missing PNG": 1}
    assert [(p["file"], p["row"]) for p in content["problems"]] == [
        ("a.png", None),
        ("b.csv", 2),
        ("b.csv", 3),
    ]
    assert set(content["problems"][0]) == {"file", "row", "problem", "action", "kind"}


def test_strict_stops_at_the_first_problem():
    report = ConversionReport(strict=True)
    with pytest.raises(StrictError, match=r"b\.csv, line 3: x is wrong"):
        report.add(PROBLEMS)
    assert len(report.problems) == 1


def test_summary_counts_kinds():
    report = ConversionReport()
    report.add(PROBLEMS)
    report.counts["annotations"] = {"train": {"volumes": 1, "images": 2, "annotations": 3}}
    console = Console(file=StringIO(), width=120)
    report.print(console)
    text = console.file.getvalue()
    assert "train.json" in text
    assert "bad row" in text
    assert "y is wrong" in text
    assert "line 3" not in text
