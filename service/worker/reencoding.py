"""After the encoder changed: profiles that another encoder made are read anew."""

from service.core.ports import Versions
from service.infra.database import Database
from service.infra.tables import Job, User


async def queue_stale(database: Database, versions: Versions) -> int:
    """Queue an encoding for everybody whose newest profile is of another encoder.

    The text stays; a new version with a new embedding takes the old one's place. One is read per
    turn of the queue, so that nobody waits until all of them are. Of several workers that start at
    once the first queues them. Gives the number of people.
    """
    async with database.write() as store:
        await store.alone("reencoding")
        stale = await store.profiles.stale(versions.encoder_version)
        turn = await store.jobs.present_turn()
        for place, old in enumerate(stale):
            user = await store.session.get_one(User, old.user_pk)
            edited = old.source == "edited"
            new = await store.profiles.add(
                old.user_pk, "edited" if edited else "reencoded", old.choices, old.seed, old.text
            )
            await store.jobs.add(
                Job(
                    kind="encode",
                    priority=0,
                    turn=turn + place,
                    tenant=user.tenant,
                    user_pk=user.pk,
                    profile_pk=new.pk,
                    request={"profile_version": new.version},
                )
            )
    return len(stale)
