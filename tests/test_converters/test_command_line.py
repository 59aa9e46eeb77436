import argparse

import pytest

from mmdet_lesion.converters import ConversionReport, ConversionResult
from mmdet_lesion.converters.command_line import add_store_options, conversion_status
from mmdet_lesion.io import Problem


def parse(*words, spacing=(0.8, 0.8, 2.0)):
    parser = argparse.ArgumentParser()
    add_store_options(parser, "raw data", spacing, "; 0 keeps it")
    return parser.parse_args(["raw", *words])


def test_options_and_defaults():
    options = parse("--out", "a")
    assert (str(options.raw), str(options.out)) == ("raw", "a")
    assert (options.spacing, options.workers) == ((0.8, 0.8, 2.0), 1)
    assert not options.resume and not options.strict
    assert parse("--out", "a", "--spacing", "1", "2", "3").spacing == [1.0, 2.0, 3.0]
    flat = parse("--out", "a", "--spacing", "1", "2", spacing=(0.8, 0.8))
    assert flat.spacing == [1.0, 2.0]


def test_help_shows_the_default_spacing(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    assert "in mm; 0 keeps it (default: 0.8 0.8 2)" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("workers", ["0", "-1", "1.5", "two"])
def test_workers_must_be_a_positive_integer(capsys, workers):
    with pytest.raises(SystemExit):
        parse("--out", "a", "--workers", workers)
    assert "1 or more" in capsys.readouterr().err


def test_failures_are_counted_and_the_first_is_named(capsys):
    report = ConversionReport(False)
    report.add([Problem("a.mhd", None, "OSError: disk full", "scan not converted", "failure")])
    assert conversion_status(ConversionResult(report, 0, 2), "scans", 5) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: 2 scans could not be converted, the first is a.mhd")


def test_empty_conversions_fail(capsys):
    result = ConversionResult(ConversionReport(False), 0, 0)
    assert conversion_status(result, "series", 1) == 0
    assert conversion_status(result, "series", 0) == 1
    assert capsys.readouterr().err.startswith("error: none of the series could be converted")
