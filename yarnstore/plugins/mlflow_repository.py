"""An artifact repository of MLflow over a store, read-only: `ystore://MODEL[:VARIANT]@VERSION[/FILE]`.

    import mlflow
    mlflow.artifacts.download_artifacts("ystore://phi-3-mini@1.1.0")

The store is the usual one (YSTORE_HOME).  A version that is not stored is downloaded when a file of it is.
Without `@VERSION` it is the installed one.
"""

from __future__ import annotations

from typing import Any, NoReturn

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from yarnstore import Store
from yarnstore.errors import NotFoundError
from yarnstore.plugins.addresses import folder_entries, split_address
from yarnstore.store import fsio
from yarnstore.store.filepath import Path

_PIECE_BYTES = 1 << 20


class YstoreArtifactRepository(ArtifactRepository):
    """The files of a version as MLflow's artifacts."""

    def __init__(self, artifact_uri: str, *args: Any, **more: Any) -> None:  # noqa: ANN401 - those of MLflow
        super().__init__(artifact_uri, *args, **more)
        self._store = Store.open()

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """See MLflow: what is in a folder; nothing for a file.

        Raises: MlflowException for what does not exist, and for an address without a model.
        """
        spec, inner = self._split(path)
        try:
            found = self._store.list_files(spec, online=True)
        except NotFoundError as error:
            raise MlflowException(str(error), RESOURCE_DOES_NOT_EXIST) from error
        above = f"{path.strip('/')}/" if path and path.strip("/") else ""
        entries = folder_entries(found.files, inner)
        if inner and not entries and inner not in {file.path for file in found.files}:
            raise MlflowException(f"{spec} has no file {inner}", RESOURCE_DOES_NOT_EXIST)
        return [
            FileInfo(above + name, file is None, None if file is None else file.size_bytes)
            for name, file in entries.items()
        ]

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        spec, inner = self._split(remote_file_path)
        try:
            target = Path(local_path)
            with self._store.open_file(spec, inner) as source, fsio.NewFile(target.parent, ".part") as file:
                while piece := source.read(_PIECE_BYTES):
                    file.write(piece)
                file.publish(target)
        except NotFoundError as error:
            raise MlflowException(str(error), RESOURCE_DOES_NOT_EXIST) from error

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse: versions are published."""
        self._refuse()

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse: versions are published."""
        self._refuse()

    def delete_artifacts(self, artifact_path: str | None = None) -> NoReturn:  # noqa: ARG002
        """Refuse: versions are published."""
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise MlflowException(
            f"{self.artifact_uri} is read-only: `ystore publish` adds versions to a registry, `ystore "
            "remove` removes them from the store",
            INVALID_PARAMETER_VALUE,
        )

    def _split(self, path: str | None) -> tuple[str, str]:
        """Return the spec and the path within the version.  MLflow cuts an address before its last part, and
        that may be the second half of a model's id."""
        root = self.artifact_uri.partition("://")[2].strip("/")
        spec, inner = split_address(self._store, f"{root}/{path or ''}".strip("/"))
        if not spec:
            raise MlflowException(
                f"{self.artifact_uri} names no model: write ystore://MODEL@VERSION", INVALID_PARAMETER_VALUE
            )
        return spec, inner.strip("/")
