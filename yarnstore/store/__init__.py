"""One local store.  Every byte written goes through `fsio`."""
