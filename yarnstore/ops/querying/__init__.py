"""Answer questions about what is installed, stored and published.

One module for each question: `inventory` (`list`), `paths` (`path`), `usage` (`list --all`), `history`
(`log`), `status`, `compat`, `catalogue` (`search`, `show`, `registry list`).  Each reads the store and the
cached registries, and changes nothing but the caches and the records of use.  Which version an update
installs is decided in `registry/decide`.
"""
