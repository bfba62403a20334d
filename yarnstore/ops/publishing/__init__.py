"""Publish versions into a registry folder, edit its entries, and check it.

The way in is `publish.publish`, `amend` for entries, `lint.lint` for checks.
"""
