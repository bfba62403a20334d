"""Download a version.

    Stored | Offered ─ eligibility ─▶ fetch: manifest ─▶ changed? ─▶ plan ─▶ transfer ─▶ packs, drafts ─▶ ref
                                        └─ no manifest ─▶ single_file ─▶ packs ─▶ ref

`fetch.fetch` is the entry point, `fetch.ensure_version` that of the packages above.  `eligibility` refuses
versions, `changed` refuses other content under a known version, `plan` chooses byte ranges, `transfer`
downloads them, `begun` keeps interrupted downloads, and `queue` downloads later.  Leaves trying sources to
`backends/sources` and reading chunks to `store/chunks`.
"""
