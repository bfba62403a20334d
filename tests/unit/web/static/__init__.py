"""Tests of the dashboard: a package, so that its browser ends with them."""
