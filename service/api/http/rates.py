"""Who asks too often is told so, and when to come again; everybody is told what is left."""

import ipaddress

from fastapi import Request

from service.actions.limits import rate_headers, retry_after
from service.core.auth import Caller
from service.core.errors import ServiceError
from service.infra.memory.rate_limits import Allowance, RateLimits

_IPV6_PREFIX = 64  # one customer has that many addresses at least


async def count_caller(request: Request, rates: RateLimits, caller: Caller) -> None:
    """Count a request of a known caller; raise 429 when it is one too many."""
    if caller.own_user_id is not None:
        _allow(request, await rates.of_session(caller.own_user_id))
    elif caller.key_pk is not None:
        _allow(request, await rates.of_key(caller.key_pk))


async def count_stranger(request: Request, rates: RateLimits) -> None:
    """Count a request that shows nothing to know its sender by; raise 429 when it is too many."""
    _allow(request, await rates.of_address(address_of(request)))


def address_of(request: Request) -> str:
    """The client's address; of IPv6 the network, since one client has all of it."""
    host = request.client.host if request.client is not None else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:  # a socket file, say
        return "unknown"
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.ip_network((int(address), _IPV6_PREFIX), strict=False))
    return str(address)


def _allow(request: Request, allowance: Allowance) -> None:
    request.state.rate_headers = rate_headers(allowance)
    if allowance.over:
        raise ServiceError(429, "rate_limited", headers=retry_after(allowance))
