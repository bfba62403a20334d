"""The routes of the API, one module for each resource; `names` reads model ids and versions in paths.

`web/app` puts the routers together.  docs/http-api.md is generated from them.
"""
