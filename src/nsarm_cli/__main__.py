"""`python -m nsarm_cli` is the same as `nsarm`."""

import sys

from nsarm_cli.cli.main import main

sys.exit(main())
