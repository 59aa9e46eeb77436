"""Package metadata of mmdet_lesion; its requirements are in requirements/."""

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
    keywords="computer vision, object detection, medical imaging, computed tomography",
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Topic :: Scientific/Engineering :: Medical Science Apps.",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["mmdet_lesion", "mmdet_lesion.*"]),
    # mmdet_lesion/.mim holds symbolic links to configs, tools and the model index, which
    # distributions hold as files.
    package_data={
        "mmdet_lesion": [
            ".mim/**/*",
            "apis/exports/*.json",
            "io/*.json",
            "model_zoo/*.json",
            "model_zoo/*.md",
            "model_zoo/*.pth",
            "model_zoo/templates/*",
            "py.typed",
            "visualization/html/templates/*",
            "visualization/report/templates/*",
            "visualization/review/templates/*",
        ]
    },
    exclude_package_data={"": ["*.pyc"]},
    entry_points={"console_scripts": ["mmdet-lesion = mmdet_lesion.__main__:main"]},
    python_requires=">=3.10",
    install_requires=requirements("runtime"),
    extras_require={"tests": requirements("tests"), "optional": requirements("optional")},
    zip_safe=False,
)
