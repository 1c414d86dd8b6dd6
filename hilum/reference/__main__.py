"""`python -m hilum.reference write|check`."""

import sys

from hilum.reference import main

sys.exit(main())
