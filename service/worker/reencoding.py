"""After the encoder changed: profiles that another encoder made are read anew."""

from service.actions.encodings import encode_job
from service.core.choices import sets_of
from service.core.ports import Versions
from service.infra.sql.database import Database
from service.infra.sql.store import Store
from service.infra.sql.tables import Profile, User

_PEOPLE_AT_ONCE = 100
_LANE = "reencoding"


async def queue_stale(database: Database, versions: Versions) -> int:
    """Queue an encoding for everybody whose newest profile is of another encoder.

    The text stays; a new version with a new embedding takes the old one's place. All of
    a tenant's take turns with what its people ask for, which does not wait for them. Any number of
    workers may do this at once: whoever has a person alone looks again. Gives the number of people.
    """
    async with database.read() as store:
        stale = await store.profiles.stale(versions.encoder_version)
    queued = 0
    for begin in range(0, len(stale), _PEOPLE_AT_ONCE):
        some = [old.user_pk for old in stale[begin : begin + _PEOPLE_AT_ONCE]]
        async with database.write() as store:
            users = await store.users.several_alone(some)
            for old in await store.profiles.stale(versions.encoder_version, list(users)):
                await _queue(store, users[old.user_pk], old)
                queued += 1
    return queued


async def _queue(store: Store, user: User, old: Profile) -> None:
    source = old.source if old.source in ("edited", "written") else "reencoded"
    new = await store.profiles.add(old.user_pk, source, old.choices, old.seed, old.text)
    await store.jobs.add(encode_job(user, new, _LANE, len(sets_of(new.choices))))
