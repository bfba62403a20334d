"""The version of this package, alone so that the build and `--version` import nothing else."""

__version__ = "0.1.0"
