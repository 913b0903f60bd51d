"""What the tests of this folder counted, for `python -m tests.trust`, and how much they are asked to do."""

import os
from collections import Counter

COUNTS = Counter()
FULL = os.environ.get("CMX_TRUST") == "full"  # the long run, of that command; else what make test takes
