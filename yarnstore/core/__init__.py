"""Pure: bytes in, values out.  No files, sockets, clock or environment."""
