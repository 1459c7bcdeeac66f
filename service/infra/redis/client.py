"""The connection to Redis, with every wait bounded."""

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError

_CONNECT_S = 1.0
_ANSWER_S = 1.0
_CONNECTIONS = 64
_HEALTH_CHECK_S = 30


def open_redis(url: str) -> Redis:
    """A client of redis://, rediss:// (TLS, certificates checked) or unix://; connects when used.

    A connection that was lost is opened once more and asked again; an answer that does not come in
    time is not waited for twice. Raises ValueError for another kind of URL.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=_CONNECTIONS,
        timeout=_ANSWER_S,
        socket_connect_timeout=_CONNECT_S,
        socket_timeout=_ANSWER_S,
        socket_keepalive=True,
        health_check_interval=_HEALTH_CHECK_S,
        retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
        protocol=2,
        decode_responses=False,
    )
    return Redis.from_pool(pool)


async def takes_writes(redis: Redis) -> None:
    """Write a few bytes that end soon; raises RedisError where there is no answer, or no room."""
    await redis.set("ppd:looked", b"1", ex=_HEALTH_CHECK_S)
