"""Bad flags, configs, checkpoints and folders of all other tools."""

import errno

import pytest
import torch

from ..small_scans import small_ct

CONFIG = """
model = dict(type="mmdet.FasterRCNN", backbone=dict(type="mmdet.ResNet", depth=18))
test_dataloader = dict(dataset=dict(pipeline=[]))
"""


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("", "arguments are required"),
        ("ct out --volumes 2", "invalid choice: 'ct'"),
        ("deeplesion out", "required: --volumes"),
        ("deeplesion out --volumes 0", "1 or more"),
        ("deeplesion out --volumes -3", "1 or more"),
        ("deeplesion out --volumes 1e9", "1 or more"),
        ("deeplesion out --volumes 99999999999", "1 or more"),
        ("deeplesion out --volumes 2 --size 16", "size is 16; expected"),
        ("deeplesion out --volumes 2 --size 1000000", "size is 1000000; expected"),
        ("deeplesion out --volumes 2 --noise nan", "noise is nan; expected"),
        ("deeplesion out --volumes 2 --noise inf", "noise is inf; expected"),
        ("deeplesion out --volumes 2 --noise -1", "noise is -1.0; expected"),
        (
            "deeplesion out --volumes 2 --missing 1.5",
            "'1.5' is not a number from 0 to 1 or 'deeplesion'",
        ),
        ("deeplesion out --volumes 2 --missing nan", "'nan' is not a number from 0 to 1 or"),
        ("deeplesion out --volumes 2 --hypodense -1", "hypodense is -1.0; expected"),
        ("deeplesion out --volumes 2 --diameter 9 3", "diameter is 9.0 and 3.0; expected"),
        ("deeplesion out --volumes 2 --diameter nan nan", "diameter is nan and nan; expected"),
        ("deeplesion out --volumes 2 --diameter 5 inf", "diameter is 5.0 and inf; expected"),
        ("deeplesion out --volumes 2 --contrast nan 5", "contrast is nan and 5.0; expected"),
        ("deeplesion out --volumes 2 --slices 0 3", "slices is 0 and 3; expected"),
        ("deeplesion out --volumes 2 --slices 5 5000", "slices do not fit into the body"),
        ("deeplesion out --volumes 2 --intervals 0", "intervals is (0.0,); expected"),
        ("deeplesion out --volumes 2 --intervals nan", "intervals is (nan,); expected"),
        ("deeplesion out --volumes 2 --types 0", "lesion_types is (0,); expected"),
        ("deeplesion out --volumes 2 --types 9", "lesion_types is (9,); expected"),
        ("deeplesion out --volumes 2 --split 1 1 1", "split is 1 1 1; expected"),
        ("deeplesion out --volumes 2 --split 0.5 0.6 0", "expected three fractions"),
        ("deeplesion out --volumes 2 --split nan 0.5 0.5", "expected three fractions"),
        ("deeplesion out --volumes 2 --seed=-1", "is not a seed"),
        ("deeplesion out --volumes 2 --seed 99999999999", "is not a seed"),
        ("deeplesion out --volumes 2 --workers 0", "1 or more"),
        ("deeplesion file.txt --volumes 2", "file.txt is a file; expected a folder"),
        ("deeplesion other --volumes 2", "has files but no phantoms.json"),
        ("deeplesion other --volumes 2 --overwrite", "has files but no phantoms.json"),
        ("luna16 out --volumes 2 --vessels 50", "vessels is 50; expected"),
        ("luna16 out --volumes 2 --padded 2", "padded is 2.0; expected"),
        ("luna16 out --volumes 2 --pixel 0 1", "pixel is 0.0 and 1.0; expected"),
        ("luna16 out --volumes 2 --pixel nan 1", "pixel is nan and 1.0; expected"),
        ("luna16 out --volumes 2 --nodules 3 1", "nodules is 3 and 1; expected"),
    ],
)
def test_phantoms(refuse, words, fragment):
    refuse("make_phantoms.py", words, fragment, {"file.txt": "x", "other/precious.txt": "x"})


def test_foreign_files_among_phantoms_are_kept(refuse, load_tool, tmp_path):
    words = f"luna16 {tmp_path}/out --volumes 1 --size 48 --pixel 2 2.6 --stature 0.3 0.35"
    assert load_tool("make_phantoms.py").main(words.split()) == 0
    for name in ("thesis.docx", "subset0/notes.txt"):
        refuse("make_phantoms.py", f"{words} --overwrite", f"contains {name}", {f"out/{name}": "x"})
        (tmp_path / "out" / name).unlink()
    assert load_tool("make_phantoms.py").main([*words.split(), "--overwrite"]) == 0


TABLE = "File_name,Patient_index\n"
PNG = "raw/Images_png/000001_01_01/001.png"


BROKEN_PAIR = {"raw/a_ct.nii": "x", "raw/a_mask.nii": "x"}


@pytest.mark.parametrize(
    ("tool", "words", "files", "fragment"),
    [
        ("deeplesion", "raw --out out", {}, "does not exist"),
        ("deeplesion", "raw --out out", {"raw/a": ""}, "Images_png does not exist"),
        ("deeplesion", "raw --out out", {PNG: ""}, "does not exist"),
        ("deeplesion", "raw --out out", {PNG: "", "raw/DL_info.csv": ""}, "has no column"),
        ("deeplesion", "raw --out out", {PNG: "", "raw/DL_info.csv": TABLE}, "has no column"),
        ("deeplesion", "raw --out out", {PNG: "", "raw/DL_info.csv": b"\xff\xfe"}, "not a text"),
        ("deeplesion", "raw", {}, "required: --out"),
        ("deeplesion", "raw --out out --spacing 1", {}, "--spacing: expected 2 arguments"),
        ("deeplesion", "raw --out out --spacing 1 2 3", {}, "has a third number"),
        ("deeplesion", "raw --out out --spacing a b", {}, "invalid float value"),
        ("deeplesion", "raw --out out --spacing -1 1", {"raw/a": ""}, "spacing is (-1.0, 1.0)"),
        ("deeplesion", "raw --out out --spacing nan 1", {"raw/a": ""}, "spacing is (nan, 1.0)"),
        ("deeplesion", "raw --out out --shard 0/2", {}, "is not a shard; expected i/n"),
        ("deeplesion", "raw --out out --shard 3/2", {}, "is not a shard; expected i/n"),
        ("deeplesion", "raw --out out --shard 1", {}, "is not a shard; expected i/n"),
        ("deeplesion", "raw --out out --shard a/b", {}, "is not a shard; expected i/n"),
        ("deeplesion", "raw --out out --workers 0", {}, "1 or more"),
        ("luna16", "raw --out out", {}, "does not exist"),
        ("luna16", "raw --out out", {"raw/a": ""}, "expected subset0 to subset9"),
        ("luna16", "raw --out out --spacing 0 1 1", {"raw/a": ""}, "spacing is (0.0, 1.0, 1.0)"),
        ("luna16", "raw --out out --spacing inf 1 1", {"raw/a": ""}, "spacing is (inf, 1.0, 1.0)"),
        ("luna16", "raw --out out --train x", {}, "invalid int value"),
        ("luna16", "raw --out out --labeled", {}, "expected at least one argument"),
        ("luna16", "raw --out out --seed x", {}, "is not a seed"),
        ("masks", "raw raw --out out", {}, "raw does not exist"),
        ("masks", "raw none --out out", {"raw/a": ""}, "none does not exist; expected a folder of"),
        ("masks", "raw raw --out out", {"raw/a": ""}, "raw contains no scan; expected DICOM"),
        (
            "masks",
            "raw raw --out out",
            {"raw/a_ct.nii": "x"},
            "raw contains no mask; expected",
        ),
        ("masks", "raw raw --out out", BROKEN_PAIR, "are those of 1 patients; expected at least 3"),
        ("masks", "raw raw --out out --split 1 0 0 --patient (", BROKEN_PAIR, "--patient is '('"),
        ("masks", "raw raw --out out --split nan 0 1", {"raw/a": ""}, "the split is nan 0 1"),
        ("masks", "raw raw --out out --spacing nan 1", {"raw/a": ""}, "spacing is (nan, 1.0)"),
        ("masks", "raw raw --out out --min-diameter x", {}, "'x' is not a number of mm from 0"),
        ("masks", "raw raw --out out --kind boxes", {}, "invalid choice: 'boxes'"),
        ("pool", "raw --out out", {}, "does not exist"),
        ("pool", "raw --out out", {"raw/a": ""}, "contains no scan"),
        ("pool", "raw --out out --spacing 1 1", {}, "expected 3 arguments"),
        ("pool", "raw --out out --seed=-4", {}, "is not a seed"),
        ("pool", "raw --out file", {"raw/a.nii": "x", "file": ""}, "is a file; expected"),
        ("pool", "raw --out raw", {"raw/a.nii": "x"}, "contains a.nii and no conversion"),
    ],
)
def test_converters(refuse, tool, words, files, fragment):
    refuse(f"dataset_converters/{tool}.py", words, fragment, files)


def test_conversions_without_a_volume_fail(refuse, phantom_raw, tmp_path):
    header = (phantom_raw / "DL_info.csv").read_text().splitlines()[0]
    files = {PNG: "", "raw/DL_info.csv": header + "\n"}
    words = "raw --out out"
    refuse("dataset_converters/deeplesion.py", words, "none of the series", files, status=1)
    refuse("dataset_converters/pool.py", "pool --out out2", "none of the scans could be",
           {"pool/a.nii": "x"}, status=1)  # fmt: skip


@pytest.fixture
def files(tmp_path):
    """Configs, checkpoints and a scan."""
    import SimpleITK as sitk  # noqa: N813

    sitk.WriteImage(small_ct().to_sitk(), str(tmp_path / "scan.nii"))
    state = {"weight": torch.ones(2)}
    torch.save({"state_dict": state}, tmp_path / "other.pth")
    torch.save({"state_dict": {"weight": torch.tensor([1.0, float("nan")])}}, tmp_path / "nan.pth")
    torch.save({"state_dict": {"weight": torch.tensor([float("inf")])}}, tmp_path / "inf.pth")
    torch.save({"state_dict": state, "ema_state_dict": 5}, tmp_path / "ema.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"state_dict": 5}, tmp_path / "five.pth")
    data = (tmp_path / "other.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(data[: len(data) // 2])
    return {
        "config.py": CONFIG,
        "five.py": "model = 5\ntest_dataloader = dict()\n",
        "empty.py": "",
        "broken.py": "model = dict(\n",
        "raises.py": "1 / 0\n",
        "unknown.py": CONFIG.replace("mmdet.FasterRCNN", "NoSuchModel"),
        "missing.py": CONFIG.replace("depth=18", "width=18"),
        "base.py": '_base_ = "none.py"\n',
        "evil.yaml": "model: !!python/object/apply:os.system [touch evil]\n",
        "text.pth": "hello",
        "empty.pth": "",
        "lfs.pth": "version https://git-lfs.github.com/spec/v1\n",
        "page.pth": "<!DOCTYPE html>",
    }


CONFIGS = [
    ("none.py", "none.py does not exist; expected a config"),
    ("empty.py", "has no model; expected a detector"),
    ("five.py", "model is 5; expected a dict"),
    ("broken.py", "broken.py cannot be read"),
    ("raises.py", "division by zero"),
    ("base.py", "base.py cannot be read"),
    ("evil.yaml", "is a YAML file, which can run code; expected a Python config"),
]
CHECKPOINTS = [
    ("none.pth", "none.pth does not exist; expected a checkpoint"),
    ("text.pth", "text.pth cannot be loaded"),
    ("empty.pth", "empty.pth cannot be loaded"),
    ("short.pth", "short.pth cannot be loaded"),
    ("lfs.pth", "lfs.pth cannot be loaded"),
    ("page.pth", "page.pth cannot be loaded"),
]


@pytest.mark.parametrize(("config", "fragment"), CONFIGS)
@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("detect.py", "scan.nii --config {} --checkpoint other.pth --out out --spacing 1 1 1"),
        ("analysis_tools/browse_lesions.py", "{} other.pth --what detected --out a.png"),
        ("analysis_tools/select_unlabeled.py", "{} other.pth LIST --out a.json"),
        ("analysis_tools/backbone_complexity.py", "{}"),
    ],
)
def test_configs(refuse, files, luna16_store, tmp_path, tool, words, config, fragment):
    words = words.replace("LIST", f"{luna16_store}/annotations/unlabeled_3.json")
    refuse(tool, words.format(config), fragment, files)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("checkpoint", "fragment"),
    [
        *CHECKPOINTS,
        ("list.pth", "contains no state_dict"),
        ("five.pth", "contains no state_dict"),
        ("nan.pth", "weight contains NaN or infinity; expected finite"),
        ("inf.pth", "weight contains NaN or infinity; expected finite"),
        ("other.pth", "cannot be built"),
    ],
)
@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ("detect.py", "scan.nii --config unknown.py --checkpoint {} --out out --spacing 1 1 1"),
        ("analysis_tools/browse_lesions.py", "unknown.py {} --what detected --out a.png"),
        ("analysis_tools/select_unlabeled.py", "unknown.py {} LIST --out a.json"),
    ],
)
def test_checkpoints(refuse, files, luna16_store, tool, words, checkpoint, fragment):
    words = words.replace("LIST", f"{luna16_store}/annotations/unlabeled_3.json")
    refuse(tool, words.format(checkpoint), fragment, files)


@pytest.mark.parametrize(
    ("checkpoint", "fragment"),
    [
        *CHECKPOINTS,
        ("list.pth", "has no ema_state_dict"),
        ("other.pth", "has no ema_state_dict"),
        ("ema.pth", "has no ema_state_dict"),
    ],
)
def test_split_teacher(refuse, files, checkpoint, fragment):
    refuse("model_converters/split_teacher.py", f"{checkpoint} --out out", fragment, files)


DETECT = "scan.nii --config config.py --checkpoint other.pth --out out --spacing 1 1 1"


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        ("", "arguments are required"),
        (DETECT.replace("scan.nii", "none.nii"), "none.nii does not exist"),
        (DETECT.replace("--spacing 1 1 1", ""), "does not contain the spacing"),
        (DETECT.replace("--spacing 1 1 1", "--spacing 1 1"), "expected 3 arguments"),
        (DETECT.replace("--spacing 1 1 1", "--spacing 1 1 -1"), "the spacing is"),
        (DETECT.replace("--spacing 1 1 1", "--spacing 1 1 nan"), "the spacing is"),
        (DETECT.replace("--spacing 1 1 1", "--spacing 1 1 1000"), "the spacing is"),
        (DETECT + " --score-thr 2", "0 to 1"),
        (DETECT + " --score-thr nan", "0 to 1"),
        (DETECT + " --score-thr high", "0 to 1"),
        (DETECT + " --batch-size 0", "1 or more"),
        (DETECT + " --timeout 0", "is not a positive number"),
        (DETECT + " --timeout nan", "is not a positive number"),
        (DETECT + " --timeout -5", "--timeout"),
        (DETECT + " --export xml", "xml"),
        (DETECT + " --device tpu", "'tpu'"),
        (DETECT + " --device cuda:99", "cuda:99"),
        (DETECT + " --png-spacing 1 1", "expected 3 arguments"),
        (DETECT + " --unknown", "unrecognized arguments"),
        (DETECT + " --model nodule_small", "not with --config and --checkpoint"),
        (DETECT.replace("--checkpoint other.pth", ""), "--checkpoint is missing; expected both"),
        (DETECT.replace("--config config.py", ""), "--config is missing; expected both"),
        ("scan.nii --out out --model unknown", "'unknown' is not a model of the zoo"),
    ],
)
def test_detect_flags(refuse, files, words, fragment):
    refuse("detect.py", words, fragment, files)


@pytest.mark.parametrize(
    ("tool", "words", "fragment", "status"),
    [
        ("check_store.py", "none", "has no folder 'volumes'", 2),
        ("check_store.py", "store", "contains no volume", 2),
        ("check_store.py", "store --workers 0", "1 or more", 2),
        ("rehearse.py", "none.py", "none.py does not exist", 2),
        ("rehearse.py", "config.py --iters 0", "1 or more", 2),
        ("rehearse.py", "config.py --crop -5", "1 or more", 2),
        ("rehearse.py", "config.py --seeds x", "is not a seed", 2),
        ("rehearse.py", "evil.yaml", "can run code", 2),
        ("sweep.py", "config.py", "arguments are required", 2),
        ("sweep.py", "none.py a=1", "none.py does not exist", 2),
        ("sweep.py", "config.py model.typo=1,2", "has no setting 'model.typo'", 2),
        ("sweep.py", "config.py model.type", "expected KEY=VALUE", 2),
        ("sweep.py", "config.py model.type=", "empty value", 2),
        ("sweep.py", "config.py model.type=a,a", "twice", 2),
        ("sweep.py", "config.py model.type=a model.type=b", "given twice", 2),
        ("sweep.py", "config.py model.type=a --gpus 0", "1 or more", 2),
        ("analysis_tools/backbone_complexity.py", "config.py --shape 0 1", "1 or more", 2),
        ("analysis_tools/backbone_complexity.py", "unknown.py", "num_slices", 2),
        ("analysis_tools/backbone_complexity.py", "missing.py", "cannot be built", 2),
        ("analysis_tools/benchmark.py", "", "arguments are required", 2),
        ("analysis_tools/benchmark.py", "speed", "invalid choice", 2),
        ("analysis_tools/benchmark.py", "window --size 0", "1 or more", 2),
        ("analysis_tools/benchmark.py", "window --thickness nan", "not a positive number", 2),
        ("analysis_tools/benchmark.py", "window --repeats 1.5", "1 or more", 2),
        ("analysis_tools/benchmark.py", "crop --shape 8 8 8 --size 9", "does not fit", 2),
        ("analysis_tools/benchmark.py", "p3d --volumes -1", "1 or more", 2),
        ("analysis_tools/benchmark.py", "luna16 --rounds x", "1 or more", 2),
        ("analysis_tools/benchmark.py", "nms3d --iou 1.5", "number from 0 to 1", 2),
        ("analysis_tools/benchmark.py", "memory3d --patch 0", "1 or more", 2),
        ("analysis_tools/benchmark.py", "memory3d --probe 32 32", "has 32 twice", 2),
        ("analysis_tools/benchmark.py", "memory3d --probe 20 36", "divisible by the largest", 2),
        ("analysis_tools/benchmark.py", "memory3d --config config.py", "expected a FocalMix", 2),
        ("analysis_tools/benchmark.py", "memory3d --config none.py", "does not exist", 2),
        ("analysis_tools/benchmark.py", "mixing --channels 0", "1 or more", 2),
        ("analysis_tools/benchmark.py", "inference --threads 0", "1 or more", 2),
        ("analysis_tools/benchmark.py", "inference --config config.py", "a SliceFasterRCNN", 2),
        ("analysis_tools/benchmark.py", "memory --config evil.yaml", "can run code", 2),
        (
            "analysis_tools/benchmark.py",
            "coarse-to-fine config.py a --switch 0.8,0.1",
            "is not LOW",
            2,
        ),
        ("analysis_tools/benchmark.py", "coarse-to-fine config.py a", "CoarseToFineDetector", 2),
        ("analysis_tools/benchmark.py", "gpu --workers -1", "0 or more", 2),
        ("analysis_tools/benchmark.py", "gpu --config none.py --device cpu", "does not exist", 2),
        ("analysis_tools/browse_lesions.py", "config.py other.pth --what x --out a", "choice", 2),
        ("analysis_tools/browse_lesions.py", "config.py other.pth --num 0 --out a", "1 or", 2),
        ("analysis_tools/select_unlabeled.py", "config.py a.pth pool --out a --num 0", "1 or", 2),
    ],
)
def test_other_tools(refuse, files, tmp_path, tool, words, fragment, status):
    (tmp_path / "store" / "volumes").mkdir(parents=True)
    refuse(tool, words, fragment, files, status)


def test_full_disks_are_named(refuse, monkeypatch, tmp_path):
    """Fail where evaluate_froc.py writes its first file."""

    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr("os.replace", full)
    words = "--protocol luna16 --gt gt.csv --series s.csv --detections d.csv --out out"
    columns = "seriesuid,coordX,coordY,coordZ,"
    files = {
        "gt.csv": columns + "diameter_mm\n1.2,1,2,3,8\n",
        "d.csv": columns + "probability\n1.2,1,2,3,0.9\n",
        "s.csv": "1.2\n",
    }
    refuse("analysis_tools/evaluate_froc.py", words, "no space left on the disk", files, status=1)
    # Neither a partial nor a temporary file is left.
    assert not any((tmp_path / "out").iterdir())
