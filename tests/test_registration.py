"""Tests of registration and imports, each in a new interpreter."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mmengine.logging import HistoryBuffer

import mmdet_lesion

HEAVY = {"torch", "mmengine", "mmcv", "mmdet", "scipy", "matplotlib", "cv2", "SimpleITK", "blosc2"}


def run(code, *args):
    """Run the code and parse the last line of its output as JSON."""
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, args)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def registered():
    """Return registry and name of every class that the package registers."""
    found = []
    for path in sorted(Path(mmdet_lesion.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for decorator in getattr(node, "decorator_list", ()):
                match ast.unparse(decorator).split("."):
                    case [registry, call] if call.startswith("register_module("):
                        names = {word.arg: word.value.value for word in decorator.keywords}
                        found.append((registry, names.get("name", node.name)))
    assert len(found) > 40
    return found


@pytest.mark.parametrize(
    "imports",
    [
        "import mmdet_lesion",
        "from mmdet.registry import HOOKS, MODELS; MODELS.get('ResNet'); HOOKS.get('EMAHook')\n"
        "import mmdet_lesion",
        "from mmengine import Config\n"
        "Config.fromstring('custom_imports = dict(imports=[\"mmdet_lesion\"])', '.py')\n"
        "import mmdet.models",
        "from mmdet_lesion.models import FocalMix",
    ],
    ids=["plugin first", "registries searched before", "config, then mmdet", "one part first"],
)
def test_mmdet_finds_every_registered_class(imports):
    names = registered()
    look_up = (
        "import json, sys, mmdet.registry as registry\n"
        "names = json.loads(sys.argv[1])\n"
        "print(json.dumps([n for r, n in names if getattr(registry, r).get(n) is None]))"
    )
    assert run(f"{imports}\n{look_up}", json.dumps(names)) == []


def test_evaluation_functions_do_not_import_heavy_packages():
    code = "import sys, json, mmdet_lesion.evaluation.functional; print(json.dumps([*sys.modules]))"
    assert not HEAVY & set(run(code))


def test_checkpoints_load_after_importing_only_the_package_and_torch(tmp_path):
    torch.save({"buffer": HistoryBuffer([1.5], [1])}, tmp_path / "c.pth")
    code = (
        "import sys, mmdet_lesion, torch\n"
        "print(torch.load(sys.argv[1], weights_only=True)['buffer'].current())"
    )
    assert run(code, tmp_path / "c.pth") == 1.5


def test_error_for_a_missing_package_names_the_install_command():
    code = (
        "import sys\nsys.modules['mmcv'] = None\n"
        "try:\n    import mmdet_lesion\n"
        "except ImportError as error:\n    import json; print(json.dumps(str(error)))"
    )
    assert "pip install --no-build-isolation mmcv" in run(code)
