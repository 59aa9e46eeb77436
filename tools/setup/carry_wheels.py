"""Pack wheels and sources for a GPU machine without a network into one archive.

Downloads the wheels that the package needs besides torch, for a given Python and platform, and the
source of mmcv, which is compiled on the machine. Wheels are repacked without compression, so that
xz compresses them better (by about 25 of 80 MiB).

Examples:
    python tools/setup/carry_wheels.py build/carry/wheels.tar.xz
    python tools/setup/carry_wheels.py build/carry/wheels.tar.xz --have scipy matplotlib --limit 0
"""

import argparse
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
#: Same versions as in the Makefile.
PINS = ["mmengine==0.10.7", "mmdet==3.3.0", "numpy<2.4", "setuptools>=61,<81", "wheel"]
MMCV = "mmcv==2.1.0"
#: Compiled on the machine, or already installed there.
NEVER = {"torch", "mmcv"}
#: Packages that common PyTorch images contain. ``gpu_setup.sh`` lists missing ones.
USUAL = """
anyio attrs certifi charset-normalizer contourpy cycler fonttools h11 httpcore httpx idna jinja2
kiwisolver markdown-it-py markupsafe matplotlib mdurl opencv-python packaging pillow py-cpuinfo
pygments pyparsing python-dateutil pyyaml requests rich scipy six threadpoolctl tqdm
typing-extensions urllib3 wheel
"""
#: pip accepts a wheel for glibc 2.N only if that N is requested.
GLIBC = (39, 35, 34, 31, 28, 27, 26, 24, 17, 12, 5)
ALIASES = {5: "1", 12: "2010", 17: "2014"}


def parse_args(args: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path, help="the archive, .tar.xz")
    parser.add_argument(
        "--python", default="3.12", help="Python version of the machine (default: 3.12)"
    )
    parser.add_argument(
        "--machine", default="x86_64", help="processor of the machine (default: x86_64)"
    )
    parser.add_argument(
        "--have",
        nargs="*",
        default=USUAL.split(),
        metavar="NAME",
        help="packages that the machine has (default: those of common PyTorch images; without "
        "names: none)",
    )
    parser.add_argument("--add", nargs="*", default=[], metavar="NAME", help="further packages")
    parser.add_argument(
        "--limit", type=float, default=60, help="largest archive in MiB; 0: no limit (default: 60)"
    )
    return parser.parse_args(args)


def requirements() -> list[str]:
    """Return the runtime requirements, pinned as in the Makefile."""
    lines = (ROOT / "requirements" / "runtime.txt").read_text().split()
    pinned = {canonical(line) for line in PINS}
    return PINS + [line for line in lines if canonical(line) not in pinned | NEVER]


def canonical(requirement: str) -> str:
    """Return the normalized name in a requirement or in a wheel's file name."""
    name = re.match(r"[A-Za-z0-9._]+(?:-(?!\d)[A-Za-z0-9._]+)*", requirement)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


def download(folder: Path, options: argparse.Namespace) -> None:
    """Download wheels for the other machine and mmcv's source."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q"]
    tags = [f"manylinux_2_{n}_{options.machine}" for n in GLIBC]
    tags += [f"manylinux{alias}_{options.machine}" for alias in ALIASES.values()]
    target = ["--only-binary=:all:", "--implementation", "cp", "--python-version", options.python]
    for tag in (*tags, f"linux_{options.machine}", "any"):
        target += ["--platform", tag]
    wanted = requirements() + options.add
    subprocess.run([*pip, *target, "-d", str(folder), *wanted], check=True)
    # pip runs mmcv's setup.py to get its name, which requires pkg_resources but not torch.
    constraint = folder / "constraints.txt"
    constraint.write_text("setuptools<81\n")
    env = {**os.environ, "PIP_CONSTRAINT": str(constraint)}
    source = [*pip, "--no-deps", "--no-binary", "mmcv", "-d", str(folder), MMCV]
    subprocess.run(source, check=True, env=env)
    constraint.unlink()


def uncompressed(wheel: Path) -> bytes:
    """Return the wheel without compression."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(wheel) as old, zipfile.ZipFile(buffer, "w") as new:
        for item in old.infolist():
            content = old.read(item)
            item.compress_type = zipfile.ZIP_STORED
            new.writestr(item, content)
    return buffer.getvalue()


def pack(files: list[Path], out: Path) -> None:
    """Write the archive."""
    out.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(out, "w:xz", preset=6) as archive:
        for file in files:
            content = uncompressed(file) if file.suffix == ".whl" else file.read_bytes()
            entry = tarfile.TarInfo(file.name)
            entry.size = len(content)
            entry.mode = 0o644
            archive.addfile(entry, io.BytesIO(content))


def main(args: list[str] | None = None) -> int:
    """Download, pack and print the contents."""
    options = parse_args(args)
    have = {canonical(name) for name in options.have} | NEVER
    have -= {canonical(name) for name in options.add}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        download(folder, options)
        files = sorted(folder.iterdir(), key=lambda file: -file.stat().st_size)
        carried = [
            file for file in files if file.suffix != ".whl" or canonical(file.name) not in have
        ]
        for file in carried:
            print(f"{file.stat().st_size / 2**20:8.2f} MiB  {file.name}")
        left = sorted({canonical(file.name) for file in files if file not in carried})
        print(f"not included, to be installed already: torch, {', '.join(left)}")
        print("packing (minutes) ...", flush=True)
        pack(carried, options.out)
        total = sum(file.stat().st_size for file in carried) / 2**20
    size = options.out.stat().st_size / 2**20
    print(f"{options.out}: {size:.1f} MiB; {len(carried)} files of {total:.1f} MiB")
    if options.limit and size > options.limit:
        print(
            f"error: {options.out} is larger than {options.limit:g} MiB; exclude packages that the "
            "machine has with --have",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
