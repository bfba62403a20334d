"""Queries about installed, stored and published versions.

One module for each query: `inventory` (`list`), `paths` (`path`), `usage` (`list --all`), `history` (`log`),
`status`, `storage` (`du`), `compat`, `catalogue` (`search`, `show`, `registry list`); `standing` is the
registries' word on an installed version.  Each reads the store and the cached registries, and changes only
the caches and the records of use.  `registry/decide` chooses the version that an update installs.
"""
