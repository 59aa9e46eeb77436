import ast
import sys
from pathlib import Path

from mmdet_lesion.evaluation import functional


def test_functions_stand_on_numpy_and_scipy_alone():
    allowed = {"numpy", "scipy", *sys.stdlib_module_names}
    for path in Path(functional.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                # One dot stays within the folder.
                assert node.level < 2, path
                found = set() if node.level else {node.module.split(".")[0]}
            else:
                continue
            assert found <= allowed, path
