"""ZipNN on one bf16 file, in memory: prints bytes and seconds as JSON.  Run where zipnn is."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from zipnn import ZipNN


def main() -> None:
    plain = Path(sys.argv[1]).read_bytes()
    tool = ZipNN(bytearray_dtype="bfloat16")
    handed = bytearray(plain)  # it works in what it is given
    started = time.perf_counter()
    packed = tool.compress(handed)
    middle = time.perf_counter()
    back = tool.decompress(packed)
    ended = time.perf_counter()
    assert bytes(back) == plain, "zipnn gave something else"
    print(json.dumps({"bytes": len(packed), "compress_s": middle - started, "decompress_s": ended - middle}))


if __name__ == "__main__":
    main()
