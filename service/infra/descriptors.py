"""How many files and sockets this process may have open."""

import os
import resource

_AT_MOST = 65_536
_KEPT_FREE = 128
"""For pictures, databases and decoders, whatever connections there are."""


def raise_limit() -> None:
    """As many as the machine lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _AT_MOST if hard == resource.RLIM_INFINITY else min(hard, _AT_MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def left_for_connections() -> int:
    """How many connections may be open beside what this process has open and may open yet."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    limit = _AT_MOST if soft == resource.RLIM_INFINITY else soft
    return max(1, limit - len(os.listdir("/proc/self/fd")) - _KEPT_FREE)
