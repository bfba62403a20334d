"""A store that plugins read."""

from __future__ import annotations

import pytest

from tests.support.stores import MODEL, Site, make_site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """1.0.0 installed, 1.1.0 and 1.2.0 in the registry; and a model with a `/` in its id."""
    found = make_site(tmp_path_factory.mktemp("plugins"))
    with found.store() as store:
        store.checkout(f"{MODEL}@1.0.0")
        store.import_model(found.source("1.2.0"), "acme/own@0.1.0")
    return found
