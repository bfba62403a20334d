"""Import, export and remove versions without a registry; import the installations of older tools.

`import_export` has the first two, `download` imports a file from the web, `removal` removes versions and
undoes that, `move` moves the store to another disk, `takeover` imports the list of an older tool.
`store/ingest` cuts files into chunks, `ops/installing` installs.
"""
