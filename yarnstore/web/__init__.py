"""`ystore serve`: the JSON API and the dashboard.  Needs the extra `web`; `records` and `errors` do not."""
