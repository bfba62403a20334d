"""Download a version: check that it is eligible, plan, transfer, and set its version ref.

The way in is `fetch.fetch`; `eligibility` refuses, `plan` chooses bytes, `transfer` brings them.
"""
