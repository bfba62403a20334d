"""JSON responses, including properties of results."""

from __future__ import annotations

from typing import Any

import msgspec
from litestar import Response

from yarnstore.core.jsonable import jsonable


class JsonResponse(Response[Any]):
    """Results with their properties, as the commands print them; bytes are sent as JSON unchanged."""

    def render(self, content: Any, media_type: str, enc_hook: Any = None) -> bytes:  # noqa: ANN401, ARG002
        """See Litestar."""
        if isinstance(content, bytes):
            return content
        if isinstance(content, str):
            return content.encode()
        return msgspec.json.encode(jsonable(content))
