"""`python -m yarnstore` is `ystore`."""

from yarnstore.cli import main

main()
