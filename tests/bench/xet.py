"""hf_xet with a local CAS: XET CAS store FOLDER NOTE | CAS restore NOTE OUT.

Run by an interpreter that has hf_xet; NOTE remembers what a version consists of.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import hf_xet


def main() -> None:
    cas, verb, source, target = sys.argv[1:]
    endpoint = f"local://{cas}"
    if verb == "store":
        paths = sorted(str(path) for path in Path(source).iterdir())
        stored = hf_xet.upload_files(paths, endpoint, None, None, None, None)
        note = [
            (Path(path).name, info.hash, info.file_size) for path, info in zip(paths, stored, strict=True)
        ]
        Path(target).write_text(json.dumps(note))
    else:
        wanted = [
            hf_xet.PyXetDownloadInfo(str(Path(target) / name), digest, size)
            for name, digest, size in json.loads(Path(source).read_text())
        ]
        hf_xet.download_files(wanted, endpoint, None, None, None)


if __name__ == "__main__":
    main()
