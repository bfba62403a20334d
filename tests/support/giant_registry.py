"""A split registry of 100 000 models, of which each file is made when it is asked for."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from tests.support.servers import Reply, Seen

MODELS = 100_000
VERSIONS = 10
MINE = ("model-00007", "model-54321", "org/model-99999")
SMALL = {"registry_version": "1.0.0", "last_updated": "2024-01-01T00:00:00Z", "split": True, "models": {}}


def body(model: str, version: str) -> bytes:
    return f"{model} {version}\n".encode() * 100


def entry_of(model: str, versions: int = VERSIONS) -> dict[str, Any]:
    numbers = [f"1.{n}.0" for n in range(versions)]
    return {
        "model_id": model,
        "current_version": numbers[-1],
        "versions": {
            number: {
                "checksum": hashlib.sha256(body(model, number)).hexdigest(),
                "download_url": f"files/{model}/{number}.bin",
                "size_bytes": len(body(model, number)),
                "changelog": f"What is new in {number}",
            }
            for number in numbers
        },
    }


class GiantRegistry:
    """A registry of which each file is made when it is asked for."""

    def __init__(self) -> None:
        self.changed: dict[str, bytes | None] = {}

    def __call__(self, seen: Seen) -> Reply:
        path = seen.path.lstrip("/")
        data = self.changed[path] if path in self.changed else self.made(path)
        if data is None:
            return Reply(status=404)
        etag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if seen.headers.get("if-none-match") == etag:
            return Reply(status=304, headers={"ETag": etag})
        return Reply(body=data, headers={"ETag": etag})

    def made(self, path: str) -> bytes | None:
        if path == "registry.json":
            return json.dumps(SMALL).encode()
        model = re.fullmatch(r"models/((?:org~)?model-(\d{5}))\.json", path)
        if model and int(model[2]) < MODELS:
            return json.dumps(entry_of(model[1].replace("~", "/"))).encode()
        file = re.fullmatch(r"files/(.+)/(\d+\.\d+\.\d+)\.bin", path)
        return body(file[1], file[2]) if file else None
