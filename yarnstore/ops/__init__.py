"""One verb per module, each returning a dataclass."""
