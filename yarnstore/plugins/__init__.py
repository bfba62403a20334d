"""Plugins of other libraries, which load them by entry points; each module needs its library.

    filesystem           fsspec: `ystore://MODEL@VERSION/FILE`
    pytest_fixture       pytest: the fixture `ystore_model`

docs/plugins.md explains them.
"""
