"""Filter compiler output from standard input: one progress line per file.

``pip install -v mmcv 2>&1 | python tools/setup/build_progress.py`` shows ninja's ``[12/77]`` steps
and pip's own lines, and keeps everything in ``build/mmcv_build.log``.
"""

import re
import sys
from pathlib import Path

STEP = re.compile(r"\[(\d+)/(\d+)\]\s+(?:.*\s)?(\S+\.(?:cpp|cu|o))")
PIP = re.compile(r"\s*(Using cached|Building wheel|Successfully|ERROR|error:)")


def main() -> None:
    """Filter standard input until it ends."""
    log_file = Path("build/mmcv_build.log")
    log_file.parent.mkdir(exist_ok=True)
    seen = set()
    with log_file.open("w") as log:
        for line in sys.stdin:
            log.write(line)
            step = STEP.search(line)
            if step and step[1] not in seen:
                seen.add(step[1])
                print(f"   [{step[1]}/{step[2]}] {Path(step[3]).name}", flush=True)
            elif PIP.match(line):
                print(f"   {line.strip()[:120]}", flush=True)
    print(f"   (full compiler output: {log_file})")


if __name__ == "__main__":
    main()
