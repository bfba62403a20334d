"""`ystore serve`: the JSON API and the dashboard.

Only `app`, `serve`, `protocol` and `routes/` import the extra `web`.

    serve, service, browser        running the service, and what it consists of
    protocol, log                  HTTP/1.1, with a limit on slow requests; the server's messages
    app, document, routes/         the routes, and their OpenAPI document
    guard, access, problems        refusing requests, tokens and sessions, errors as problem documents
    requests, records              the bodies that the API reads, and the types that it returns
    commands                       the seven commands that applications know by name
    joblist, entries               the list of jobs, and one job, as the service and as its file have them
    jobs, work, progress, events   running jobs, what each kind does, how far it is, and telling browsers
    plans, schedule                plans of `gc`; the next check of auto-update
    static/                        the dashboard

docs/http-api.md and docs/serve.md govern the service.
"""
