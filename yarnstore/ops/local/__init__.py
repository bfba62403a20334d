"""Import, export and remove versions without a registry; take over older installations.

`import_export` has the three commands, `move` moves the store to another disk, `takeover` imports the list of
an older tool.  Cutting files into
chunks is left to `store/ingest`, installing to `ops/installing`.
"""
