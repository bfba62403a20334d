"""Answer questions about what is installed, stored and published.  Changes nothing."""
