"""`make cases`."""

import functools
import sys

from tests.cases.scripts import main

sys.exit(main(functools.partial(print, flush=True)))
