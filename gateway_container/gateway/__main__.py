"""``python -m gateway``: the hot path, configured by the environment."""

import sys

from gateway.settings import BadSetting, from_environment, refuse_unusable
from gateway.workers import run


def main() -> int:
    try:
        settings = from_environment()
        refuse_unusable(settings.spool_dir)
    except (BadSetting, OSError) as error:
        print(f"gateway: {error} See docs/gateway.md.", file=sys.stderr)  # noqa: T201 - before logging exists
        return 2
    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
