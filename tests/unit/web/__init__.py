"""Tests of the service: a package, so that what they share ends with them."""
