"""What versions need of other models: which builds fit the installed versions.

An adapter, tokenizer or projector names its base model in `requires`.  Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from yarnstore.core.reflog import Installed
from yarnstore.registry.spec import Spec, parse_specs

if TYPE_CHECKING:
    from yarnstore.registry.select import Build


class Requirements(NamedTuple):
    """The installed versions by model, and what they need: by the model needed, labels and specs.

    A requirement that is not met is left out: no update can break it.
    """

    installed: Mapping[str, Installed]
    needed: Mapping[str, tuple[tuple[str, Spec], ...]]

    def conflict(self, build: Build) -> str:
        """Return why a build does not fit the installed versions (it breaks one, or needs another), or ""."""
        for label, spec in self.needed.get(build.model, ()):
            if not spec.admits(build.variant, build.version):
                return f"{label} needs {spec}"
        for spec in parse_specs(build.entry.requires):
            has = spec.instead(self.installed.get(spec.model))
            if has:
                return f"it needs {spec}, and {has}"
        return ""
