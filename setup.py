"""Package metadata of mmdet_lesion; what it needs stands in requirements/."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def requirements(name):
    """Read ``requirements/{name}.txt`` without comments."""
    lines = (ROOT / "requirements" / f"{name}.txt").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def version():
    """Read the version without importing the package, which needs torch."""
    scope = {}
    exec((ROOT / "mmdet_lesion" / "version.py").read_text(), scope)
    return scope["__version__"]


setup(
    name="mmdet-lesion",
    version=version(),
    description="CT lesion detection with missing or few labels: a plugin for MMDetection 3.x",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    packages=find_packages(include=["mmdet_lesion", "mmdet_lesion.*"]),
    package_data={"mmdet_lesion": ["apis/exports/*.json", "visualization/report/templates/*"]},
    python_requires=">=3.10",
    install_requires=requirements("runtime"),
    extras_require={"tests": requirements("tests"), "optional": requirements("optional")},
)
