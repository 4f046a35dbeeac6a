"""A later process of a run of several: what pnn.ranks starts."""

from __future__ import annotations

import json
import sys

from pnn.errors import UserError


def main() -> None:
    """Train as one of the processes; the first one writes the configuration to the standard input."""
    from pnn.config import settled_job
    from pnn.train import train

    sys.stdout = sys.stderr  # a file; the first process speaks
    config = json.load(sys.stdin)
    try:
        settled_job(train, config)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
