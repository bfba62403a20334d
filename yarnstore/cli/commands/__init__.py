"""One module per command: parse, call the API, print what it returns."""
