"""`ppd doctor`: what is wrong with this installation, and what to do about it."""

import asyncio
import hashlib
import importlib.util
import ipaddress
import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from service.core.messages import KINDS
from service.core.pool import load_pool
from service.core.ports import ModelRuntime
from service.infra import logs
from service.infra.queue import queue_state
from service.infra.sql import migrate
from service.infra.sql.tables import now
from service.settings import Settings, unknown_variables
from service.wiring import image_store, judges, open_database, signer

_PATIENCE_S = 10.0
_RENEW_DAYS = 30
_ADDRESSES_OF_PROXIES = 2**16


class Skipped(Exception):  # noqa: N818 - it is the name of the outcome
    """There is nothing to look at here, and that is right."""


class Warned(Exception):  # noqa: N818 - it is the name of the outcome
    """It works, and is not as it should be."""


@dataclass(frozen=True)
class Check:
    """One thing to look at: `look` says how it stands, or raises; `remedy` says what to do then."""

    what: str
    look: Callable[[], str]
    remedy: str


def examine(
    settings: Settings, runtime: Callable[[], ModelRuntime], say: Callable[[str], None]
) -> bool:
    """Say how everything stands; false when something is wrong."""
    shown = settings.redacted()
    for name, value in shown.items():
        say(f"{name:>36}  {value}")
    hide = logs.Scrubber(settings.secrets)
    passed = [_passes(check, hide, say) for check in _checks(settings, runtime)]
    return all(passed)


def _checks(settings: Settings, runtime: Callable[[], ModelRuntime]) -> list[Check]:
    return [
        Check("settings", _names, "Correct the names, or take them out of the environment."),
        Check(
            "data folder",
            lambda: _data_folder(settings),
            "Name another folder with PPD_DATA_DIR, or make room and give the process its rights.",
        ),
        Check(
            "database",
            lambda: _database(settings),
            "Run `ppd migrate`; if it does not answer, look at PPD_DATABASE_URL and at the server.",
        ),
        Check(
            "Redis",
            lambda: _redis(settings),
            "Look at PPD_REDIS_URL and at the server. Nothing is lost with it.",
        ),
        Check(
            "image store",
            lambda: asyncio.run(_images(settings)),
            "Look at PPD_IMAGES_URL, the bucket and its rights, or the folder and its room.",
        ),
        Check(
            "adapters",
            lambda: asyncio.run(_adapters(settings)),
            "Put lost bytes back with `ppd adapters add FILE`; or unset PPD_ADAPTER, or set "
            "PPD_ADAPTERS_IN_MEMORY to 2 or more.",
        ),
        Check(
            "pool of pairs",
            lambda: _pool(settings),
            "Name the folder that holds pairs.json with PPD_POOL_DIR, or take the shipped one.",
        ),
        Check(
            "names and proxies",
            lambda: _reached_as(settings),
            "Set PPD_ALLOWED_HOSTS or PPD_PUBLIC_URL, and in PPD_TRUSTED_PROXIES the proxy's own "
            "addresses and no others.",
        ),
        Check(
            "moderation",
            lambda: asyncio.run(_moderation(settings)),
            "Set PPD_MODERATION_WORDS or PPD_MODERATION_URL, or correct what they name.",
        ),
        Check(
            "signed pictures",
            lambda: _signing(settings),
            "Look at PPD_C2PA_CERTIFICATE and PPD_C2PA_KEY, and renew the certificate in time.",
        ),
        Check(
            "weights",
            lambda: _weights(runtime),
            "Fetch them with `ppd models pull` or name their folder with PPD_WEIGHTS_DIR.",
        ),
        Check(
            "workers",
            lambda: asyncio.run(_workers(settings)),
            "Start `ppd worker --queues encode,generate` on the same database.",
        ),
    ]


def _passes(check: Check, hide: logs.Scrubber, say: Callable[[str], None]) -> bool:
    try:
        say(f"ok      {check.what}: {hide(check.look())}")
    except Skipped as reason:
        say(f"skipped {check.what}: {reason}")
    except Warned as reason:
        say(f"warning {check.what}: {hide(str(reason))}\n        {check.remedy}")
    except Exception as error:
        text = hide(logs.error_text(error)) or type(error).__name__
        say(f"FAULT   {check.what}: {text}\n        {check.remedy}")
        return False
    return True


def _names() -> str:
    unknown = unknown_variables()
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: no setting has this name")
    return "all are known"


def _data_folder(settings: Settings) -> str:
    folder = settings.data_dir
    if settings.production and settings.images_url is not None and not folder.exists():
        raise Skipped("nothing is kept in it here")
    if not folder.is_dir():
        raise ValueError(f"{folder} does not exist; `ppd migrate` makes it")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"{folder} cannot be written to")
    free_bytes = shutil.disk_usage(folder).free
    if free_bytes < settings.min_free_bytes:
        raise ValueError(
            f"{folder} has {free_bytes // 2**20} MiB left; below "
            f"{settings.min_free_bytes // 2**20} MiB no picture is stored (PPD_MIN_FREE_BYTES)"
        )
    return f"{folder}, {free_bytes // 2**30} GiB left"


def _reached_as(settings: Settings) -> str:
    """Under which names it answers, and whose word is taken for who asks."""
    if not settings.is_public:
        raise Skipped("only this machine is served")
    faults = []
    if not settings.allowed_hosts and settings.public_url is None:
        faults.append("beyond loopback it answers under every name that any site points here")
    named = settings.trusted_proxies.split(",") if settings.trusted_proxies else []
    proxies = [ipaddress.ip_network(one.strip(), strict=False) for one in named]
    if (settings.public_url or "").startswith("https:") and not proxies:
        faults.append(
            "PPD_PUBLIC_URL is https, which a proxy speaks, and no proxy is trusted: cookies are "
            "not Secure, and everybody counts as one address"
        )
    wide = [str(one) for one in proxies if one.num_addresses > _ADDRESSES_OF_PROXIES]
    if wide:
        faults.append(f"everybody in {', '.join(wide)} may say who asks")
    if faults:
        raise Warned("; ".join(faults))
    return ", ".join(settings.answered_hosts) or "every name"


def _database(settings: Settings) -> str:
    if not settings.production and not (settings.data_dir / "ppd.db").exists():
        raise ValueError("there is none yet")
    migrate.refuse_old(settings.database)
    current, head = migrate.revision(settings.database)
    newer = "" if current == head else f", of a newer version; this one's is {head}"
    return f"schema {current}{newer}"


def _redis(settings: Settings) -> str:
    if settings.redis_url is None:
        raise Skipped("none is used (PPD_REDIS_URL)")
    from redis import Redis

    url = settings.redis_url.get_secret_value()
    with Redis.from_url(url, socket_timeout=5, socket_connect_timeout=5) as client:
        server = client.info("server")
        memory = client.info("memory")
    used = memory["used_memory"] // 2**20
    return f"version {server['redis_version']}, {used} MiB used"


async def _images(settings: Settings) -> str:
    """Write, read back and delete a few bytes."""
    images = image_store(settings)
    if settings.images_url is None and not settings.data_dir.is_dir():
        raise ValueError(f"its folder lies in {settings.data_dir}, which does not exist")
    key, data = f"doctor/{secrets.token_hex(16)}.png", secrets.token_bytes(64)
    async with asyncio.timeout(_PATIENCE_S):
        await images.put(key, data)
        try:
            if await images.get(key) != data:
                raise ValueError("it does not give back what it was given")
        finally:
            await images.delete([key])
    return "what was written came back"


async def _adapters(settings: Settings) -> str:
    """Whether those in service can be had, and one process can serve them side by side."""
    if not settings.production and not (settings.data_dir / "ppd.db").exists():
        raise Skipped("there is no database yet")
    database, images = open_database(settings), image_store(settings)
    try:
        async with asyncio.timeout(_PATIENCE_S), database.read() as store:
            serving = await store.adapters.serving()
            rows = [await store.adapters.get(one) for one in serving.versions]
    finally:
        await database.close()
    for row in rows:
        assert row is not None, "those in service are kept"
        found = hashlib.sha256(await images.get(row.key)).hexdigest()
        if found != row.sha256:
            raise ValueError(f"the bytes of adapter {row.version} have sha256 {found}")
    if settings.adapter is not None and serving.versions:
        raise Warned(f"PPD_ADAPTER={settings.adapter} is served in the place of what is activated")
    if len(rows) > settings.adapters_in_memory:
        raise Warned("two are in service and one is kept loaded: it is read anew for each change")
    first = serving.first or "the shipped one"
    if serving.trial is None:
        return f"{first} serves everybody"
    return f"{first} in service, {serving.trial} for {serving.share:.4g} of the people"


def _pool(settings: Settings) -> str:
    pool = load_pool(settings.pool_dir)
    return f"version {pool.version}, {len(pool.pairs)} pairs"


async def _moderation(settings: Settings) -> str:
    """Whether content is judged; on a host that others reach it should be."""
    asked = judges(settings)
    if not asked.judges:
        if not settings.is_public:
            raise Skipped("nothing is judged; nobody but this machine is served")
        where = settings.public_url or settings.host
        raise Warned(f"nothing is judged, and others reach {where}")
    for judge in asked.judges:
        await judge.refuses_text("a red apple on a table")
    return f"asked for {settings.moderation_places}"


def _signing(settings: Settings) -> str:
    signs = signer(settings)
    if signs is None:
        raise Skipped("none are; every picture says without a signature that a model made it")
    left_days = (signs.not_after - now()).days
    if left_days < 0:
        raise ValueError(f"the certificate ended on {signs.not_after:%Y-%m-%d}")
    if left_days < _RENEW_DAYS:
        raise Warned(f"the certificate ends on {signs.not_after:%Y-%m-%d}")
    return f"by a certificate that ends on {signs.not_after:%Y-%m-%d}"


def _weights(runtime: Callable[[], ModelRuntime]) -> str:
    if importlib.util.find_spec("torch") is None:
        raise Skipped("torch is not installed here, so this process serves and runs no model")
    model = runtime()
    versions = model.load()
    model.close()
    return (
        f"model {versions.model}, adapter {versions.adapter_version}, "
        f"encoder {versions.encoder_version}"
    )


async def _workers(settings: Settings) -> str:
    if not settings.production:
        raise Skipped("`ppd serve` has its own")
    database = open_database(settings)
    try:
        async with asyncio.timeout(_PATIENCE_S):
            workers = (await queue_state.read(database)).workers
    finally:
        await database.close()
    missing = [kind for kind in KINDS if not workers.get((kind, "ready"))]
    if missing:
        raise ValueError(f"within a minute nobody was seen who is ready for {' or '.join(missing)}")
    return ", ".join(f"{workers[kind, 'ready']} for {kind}" for kind in KINDS)
