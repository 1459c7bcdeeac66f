"""Who is one client, and which limits can be set."""

import pytest
from fastapi import Request

from service.api.http.rates import address_of
from service.settings import Settings


def asked_from(host: str | None) -> Request:
    return Request({"type": "http", "client": (host, 1) if host is not None else None})


def test_an_address_is_one_client_and_so_is_a_network_of_ipv6() -> None:
    assert address_of(asked_from("192.0.2.7")) == "192.0.2.7"
    assert address_of(asked_from("::ffff:192.0.2.7")) == "192.0.2.7"
    assert address_of(asked_from("2001:db8:1:2:3::4")) == "2001:db8:1:2::/64"
    assert address_of(asked_from("2001:db8:1:2:ffff::1")) == "2001:db8:1:2::/64"
    assert address_of(asked_from("/run/ppd.sock")) == address_of(asked_from(None)) == "unknown"


@pytest.mark.parametrize("rate", ["600/minute", "1 per second", "7200 per 2 hours"])
def test_limits_are_set_in_the_librarys_notation(rate: str) -> None:
    assert Settings(rate_limit_key=rate).rate_limit_key == rate


@pytest.mark.parametrize(
    "rate", ["", "600", "0/minute", "-1/minute", "1/fortnight", "1/day;2/hour"]
)
def test_what_is_no_limit_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="number per time"):
        Settings(rate_limit_key=rate)


@pytest.mark.parametrize("url", ["localhost:6379", "http://localhost", "redis://"])
def test_what_is_no_redis_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match="rediss://") as error:
        Settings(redis_url=url)  # type: ignore[arg-type]
    assert "localhost" not in str(error.value)
