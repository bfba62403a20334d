"""Pure functions on registries: what a registry says, and which version to choose.

    entries, schema, check, memory     the document: its types, reading it, rules, the memory that it needs
    spec, versions, ranges, select     what a person asks for, and which build that is
    host, decide, standing             what a version must fit; which one an update installs; its standing
    pins, policies, windows            pins; settings of unattended updates and self-checks
    lockfile, timestamps               `ystore.lock`; which of two states of a registry is older
    edit, lint                         changing a registry's document, and finding its problems

No module here does I/O or reads the clock.  docs/registry.md governs the document.
"""
