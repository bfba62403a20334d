"""Plugins of other libraries, which load them by entry points; each module needs its library; `addresses`
parses what they share.

    filesystem           fsspec: `ystore://MODEL@VERSION/FILE`
    mlflow_repository    MLflow: `ystore://MODEL@VERSION` as artifacts
    pytest_fixture       pytest: the fixture `ystore_model`

docs/plugins.md explains them.
"""
