"""Pure functions on registries: reading the document and choosing a version.

    entries, schema, check, memory     the document: types, parser, rules, memory limit
    spec, versions, ranges, select     specs, versions, ranges, and the build that a spec selects
    host, decide, standing             the machine; the version that an update installs; a version's standing
    pins, policies, windows            pins; settings of unattended updates and self-checks
    lockfile, timestamps               `ystore.lock`; comparing the age of two states of a registry
    edit, lint                         editing a registry's document, and finding its problems

No module here does I/O or reads the clock.  docs/registry.md governs the document.
"""
