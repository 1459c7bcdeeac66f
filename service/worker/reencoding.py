"""After the encoder changed: profiles that another encoder made are read anew."""

from service.core.ports import Versions
from service.infra.database import Database
from service.infra.tables import Job, User


async def queue_stale(database: Database, versions: Versions) -> int:
    """Queue an encoding for everybody whose newest profile is of another encoder.

    The text stays; a new version with a new embedding takes the old one's place. Gives the number
    of people.
    """
    async with database.write() as store:
        stale = await store.profiles.stale(versions.encoder_version)
        for old in stale:
            user = await store.session.get_one(User, old.user_pk)
            edited = old.source == "edited"
            new = await store.profiles.add(
                old.user_pk, "edited" if edited else "reencoded", old.choices, old.seed, old.text
            )
            await store.jobs.add(
                Job(
                    kind="encode",
                    priority=0,
                    tenant=user.tenant,
                    user_pk=user.pk,
                    profile_pk=new.pk,
                    request={"profile_version": new.version},
                )
            )
    return len(stale)
