"""`make bench`: each operation against its floor on this machine, and beside the peers installed.

- `primitives`, `floors`: what this machine can do, and the least an operation can take from that;
- `operations`: the `ystore` command timed as whole processes;
- `peers`, `wire`, `sizes`: others at the same work, bytes on the wire, bytes at rest;
- `startup`, `scale`: what does not depend on the size of a model;
- `process`, `workload`, `serve`: running things; `report`, `plot`: telling of it.
"""
