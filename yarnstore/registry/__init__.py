"""Pure: what a registry says, and which version a spec means.  No I/O, no clock."""
