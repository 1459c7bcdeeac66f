"""A person's answers and the profile that comes of them."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from service.actions.encodings import follow_answers, queue_encoding
from service.actions.leftovers import delete_leftovers, delete_soon
from service.actions.moderating import Content, refuse
from service.actions.words import caption_not_read
from service.api.deps import CallerDep, ProtectedRoute, ServicesDep, TasteDep, WaitDep
from service.api.http.cursors import decode_cursor, encode_cursor
from service.api.idempotency import Accepted, Once, OnceDep, Prepare, Work
from service.api.made_pairs import MadePair, made_pairs
from service.api.routes.jobs import wait_if_asked
from service.api.routes.pairs import pair_out
from service.api.schemas import (
    AgainstOut,
    AnswerIn,
    AnswersIn,
    ChoiceIn,
    ChoiceOut,
    ErrorOut,
    LikesIn,
    PreferencesIn,
    PreferencesOut,
    PreferencesStateOut,
    ProfileIn,
    ProfileOut,
    ProfilesOut,
    ProfileVersionOut,
    QuizOut,
    QuizPairOut,
    WarningOut,
)
from service.api.services import Services
from service.api.uploads import (
    check_quota,
    clean_pictures,
    clean_uploads,
    contents,
    image_row,
    put_pictures,
)
from service.core.auth import Caller, person_of, taste_of
from service.core.choices import begins_encoding, newest_read, profile_state
from service.core.errors import CODES, ServiceError, invalid
from service.core.foretold import Foretold, foretold
from service.core.likes import picture_against
from service.core.messages import status_event
from service.core.pool import Pair, pair_url
from service.core.proof.wins import Outcome
from service.core.quiz import CHOICES_PER_EMBEDDING, after, needed, next_pairs, sides
from service.infra.sql.store import Store
from service.infra.sql.tables import Choice, Image, Job, Profile, User

router = APIRouter(prefix="/users/{user_id}", tags=["preferences"], route_class=ProtectedRoute)

_READY: dict[int | str, dict[str, Any]] = {
    200: {"model": PreferencesStateOut, "description": "The profile is ready."}
}
AnswerId = Annotated[int, Path(ge=1, le=2**31 - 1)]


_VERSIONS = 20
"""So many versions of a profile come with the answers."""


@router.get("/quiz")
async def quiz(name: TasteDep, caller: CallerDep, services: ServicesDep) -> QuizOut:
    """The next pairs to ask: as many as an embedding still needs, else four that would add most."""
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, name)
        answers = await store.choices.of(user.pk) if user is not None else []
        read = await store.choices.read_from(user) if user is not None else []
    still = needed(len(read))
    person = _person(caller, name)
    pool = services.pool.pairs
    given = {answer.pair_id: answer.preferred for answer in answers if answer.pair_id is not None}
    pairs = next_pairs(pool, given, person, still or CHOICES_PER_EMBEDDING)
    ahead = after(pairs[0], pool, given, person) if pairs else []

    def asked(some: list[Pair]) -> list[QuizPairOut]:
        return [
            QuizPairOut(**pair_out(pair).model_dump(), order=list(sides(person, pair.pair_id)))
            for pair in some
        ]

    return QuizOut(needed=still, answered=len(answers), pairs=asked(pairs), ahead=asked(ahead))


@router.post(
    "/preferences",
    status_code=202,
    response_model_exclude_none=False,
    responses=_READY,
)
async def post_preferences(
    name: TasteDep,
    body: PreferencesIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
    once: OnceDep,
) -> PreferencesStateOut:
    """Store answers. Once four are decided, the profile is encoded anew from all of them.

    Where the newest version was read from the same answers, or is being, it stands.
    """
    made: list[MadePair | None] = []
    sent: list[list[bytes]] = []
    stored_keys: list[str] = []
    overtaken: list[Job] = []
    told: list[tuple[str, Outcome]] = []

    async def read_pictures() -> None:
        made.extend(await made_pairs(services, caller, name, body))
        own = await clean_uploads(services, caller, person_of(name), body)
        await refuse(services, "upload", contents(body, own), caller.audited_as, caller.tenant)
        pairs = zip(own, made, strict=True)
        sent.extend(ours if pair is None else pair.pictures for ours, pair in pairs)

    async def work(store: Store) -> Accepted:
        user = await store.users.get_or_create(caller.tenant, name, alone=True, lane=caller.lane)
        uploads = [[image_row(user, data) for data in pictures] for pictures in sent]
        await check_quota(store, services.limits, user, [i for images in uploads for i in images])
        rows = zip(body.choices, made, uploads, sent, strict=True)
        for choice, pair, images, pictures in rows:
            answer = None
            if choice.image_ids is not None:
                answer = await store.choices.answer_made_again(
                    user.pk, choice.image_ids, choice.preferred
                )
            if answer is None:
                stored_keys.extend(image.key for image in images)
                await put_pictures(services, images, pictures)
                await store.images.add(images)
                answer = _choice_row(services, caller, user, choice, pair, images)
                await store.choices.put(answer)
            blind = None if pair is None else pair.blind_choice(answer, user.person_pk)
            if blind is not None:
                told.append((blind.adapter_version, await store.blind_choices.add(blind)))
        decided = sum(choice.preferred is not None for choice in body.choices)
        ids, late = await _begin(store, services, caller, user, decided)
        overtaken.extend(late)
        return Accepted(ids, user_pk=user.person_pk)

    accepted = await _once_with_pictures(services, once, work, read_pictures, stored_keys)
    for adapter_version, outcome in told:
        services.metrics.blind_choice(adapter_version, outcome)
    _announce(services, overtaken, accepted["job_id"])
    state = await _present(name, accepted, request, response, caller, services, wait_s)
    state.warnings = _not_read(body, services)
    return state


@router.post("/likes", status_code=202, responses=_READY)
async def post_likes(
    name: TasteDep,
    body: LikesIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
    once: OnceDep,
) -> PreferencesStateOut:
    """Store pictures that are liked without a pair, four or more; the profile is encoded anew.

    Each is read as preferred to a picture of the quiz's pool of its nearest caption, which
    `against` of the answer names afterwards. Nobody compared the two.
    """
    pictures: list[bytes] = []
    stored_keys: list[str] = []
    overtaken: list[Job] = []

    async def read_pictures() -> None:
        texts = {f"/liked/{i}/image": one.image for i, one in enumerate(body.liked)}
        read = await clean_pictures(services, caller, person_of(name), texts)
        pictures.extend(read[pointer] for pointer in texts)
        sent: list[Content] = [
            (f"/liked/{i}/caption", one.caption or "", "text/plain")
            for i, one in enumerate(body.liked)
        ]
        sent += [(pointer, data, "image/png") for pointer, data in read.items()]
        await refuse(services, "upload", sent, caller.audited_as, caller.tenant)

    async def work(store: Store) -> Accepted:
        user = await store.users.get_or_create(caller.tenant, name, alone=True, lane=caller.lane)
        images = [image_row(user, data) for data in pictures]
        await check_quota(store, services.limits, user, images)
        stored_keys.extend(image.key for image in images)
        await put_pictures(services, images, pictures)
        await store.images.add(images)
        for one, image in zip(body.liked, images, strict=True):
            choice = Choice(user_pk=user.pk, caption=one.caption or "", preferred=0)
            choice.image_0_id = image.id
            await store.choices.put(choice)
        ids, late = await _begin(store, services, caller, user, len(images))
        overtaken.extend(late)
        return Accepted(ids, user_pk=user.person_pk)

    accepted = await _once_with_pictures(services, once, work, read_pictures, stored_keys)
    _announce(services, overtaken, accepted["job_id"])
    return await _present(name, accepted, request, response, caller, services, wait_s)


@router.patch(
    "/preferences",
    status_code=202,
    responses=_READY,
)
async def choose_since(
    name: TasteDep,
    body: AnswersIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
) -> PreferencesStateOut:
    """Leave out answers that were given before a time, or count all again; the profile follows."""

    async def change(store: Store, user: User) -> list[str]:
        user.answers_since = body.since
        return []

    return await _changed(name, change, request, response, caller, services, wait_s)


@router.patch(
    "/preferences/{answer_id}",
    status_code=202,
    responses=_READY,
)
async def change_answer(
    name: TasteDep,
    answer_id: AnswerId,
    body: AnswerIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
) -> PreferencesStateOut:
    """Answer a pair otherwise; the profile follows."""

    async def change(store: Store, user: User) -> list[str]:
        answer = await _answer(store, user, answer_id)
        await store.choices.answer_again(answer, body.preferred)
        return []

    return await _changed(name, change, request, response, caller, services, wait_s)


@router.delete(
    "/preferences/{answer_id}",
    status_code=202,
    responses=_READY,
)
async def remove_answer(
    name: TasteDep,
    answer_id: AnswerId,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
) -> PreferencesStateOut:
    """Remove an answer, with the pictures that were uploaded for it; the profile follows.

    Where fewer than four are left and no text was given, there is no profile any more.
    """

    async def change(store: Store, user: User) -> list[str]:
        answer = await _answer(store, user, answer_id)
        own = [image for image in (answer.image_0_id, answer.image_1_id) if image is not None]
        await store.choices.remove(answer)
        return await store.images.remove(own)

    return await _changed(name, change, request, response, caller, services, wait_s)


@router.put(
    "/profile",
    status_code=202,
    responses=_READY,
)
async def put_profile(
    name: TasteDep,
    body: ProfileIn,
    request: Request,
    response: Response,
    caller: CallerDep,
    services: ServicesDep,
    wait_s: WaitDep,
) -> PreferencesStateOut:
    """Put a text in the place of the profile; it is read together with all choices.

    Until there are four, the text alone is read, and the user need not be known yet.
    """
    text = ("/text", body.text, "text/plain")
    await refuse(services, "prompt", [text], caller.audited_as, caller.tenant)
    async with services.database.write() as store:
        user = await store.users.get_or_create(caller.tenant, name, alone=True, lane=caller.lane)
        encoding = await queue_encoding(
            store,
            services,
            services.limits,
            caller,
            user,
            encoder_version=await services.worker.encoder_version(),
            choices=await store.choices.read_from(user),
            text=body.text,
        )
    _announce(services, encoding.overtaken, encoding.ids["job_id"])
    return await _present(name, encoding.ids, request, response, caller, services, wait_s)


@router.get("/preferences")
async def get_preferences(
    name: TasteDep, caller: CallerDep, services: ServicesDep
) -> PreferencesOut:
    """All answers, the current profile and its newest versions; `profiles_next` leads on."""
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, name)
        person = await store.users.find(caller.tenant, person_of(name))
        if user is None and not caller.is_session:
            raise nobody(name)
        answers = await store.choices.of(user.pk) if user is not None else []
        read = await store.choices.read_from(user) if user is not None else []
        newest = await store.profiles.page(user.pk, None, _VERSIONS + 1) if user is not None else []
        ready, standing = await store.profiles.states(user.pk) if user is not None else (None, None)
        of = await what_is_foretold(store, services, user, ready)
    profiles = newest[:_VERSIONS]
    counting = {answer.pk for answer in newest_read(read)}
    return PreferencesOut(
        user_id=person_of(name),
        taste=taste_of(name),
        status=profile_state(standing),
        profile_version=ready.version if ready is not None else None,
        answered=len(answers),
        needed=needed(len(read)),
        since=user.answers_since if user is not None else None,
        contribute=person is not None and person.contributes_since is not None,
        choices=[choice_out(services, answer, counts=answer.pk in counting) for answer in answers],
        profile=profile_out(ready, of) if ready is not None else None,
        profiles=[version_out(profile) for profile in reversed(profiles)],
        profiles_next=encode_cursor(profiles[-1].version) if len(newest) > _VERSIONS else None,
    )


@router.get("/profiles")
async def list_profiles(
    name: TasteDep,
    caller: CallerDep,
    services: ServicesDep,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    cursor: Annotated[str | None, Query(max_length=256)] = None,
) -> ProfilesOut:
    """Versions of the profile, newest first. The newest hundred are kept, and those in use."""
    before = None
    if cursor is not None:
        (before,) = map(int, decode_cursor(cursor, int))
        if not 0 <= before < 2**31:
            raise invalid("", "query parameter cursor: is not one of ours")
    async with services.database.read() as store:
        user = await store.users.find(caller.tenant, name)
        if user is None and not caller.is_session:
            raise nobody(name)
        found = await store.profiles.page(user.pk, before, limit + 1) if user is not None else []
    page = found[:limit]
    following = encode_cursor(page[-1].version) if len(found) > limit else None
    return ProfilesOut(results=[version_out(profile) for profile in page], next=following)


Change = Callable[[Store, User], Awaitable[list[str]]]
"""What is done to a user's answers; gives the keys of pictures that are to be deleted with it."""


async def _changed(
    name: str,
    change: Change,
    request: Request,
    response: Response,
    caller: Caller,
    services: Services,
    wait_s: float | None,
    *,
    limited: bool = True,
) -> PreferencesStateOut:
    """Change the answers of a user who is there, and let the profile follow."""
    async with services.database.write() as store:
        user = await store.users.alone(caller.tenant, name)
        if user is None:
            raise nobody(name)
        gone = await change(store, user)
        await store.session.flush()
        encoding = await follow_answers(
            store,
            services,
            services.limits,
            caller,
            user,
            encoder_version=await services.worker.encoder_version(),
            limited=limited,
        )
    await delete_soon(services, gone)
    _announce(services, encoding.overtaken, encoding.ids["job_id"])
    return await _present(name, encoding.ids, request, response, caller, services, wait_s)


async def _answer(store: Store, user: User, answer_id: int) -> Choice:
    answer = await store.choices.get(user.pk, answer_id)
    if answer is None:
        raise ServiceError(404, "answer_not_found")
    return answer


async def found_user(store: Store, caller: Caller, name: str) -> User:
    """The tenant's user, or a taste of one by its name; 404 when there is none."""
    user = await store.users.find(caller.tenant, name)
    if user is None:
        raise nobody(name)
    return user


def nobody(name: str) -> ServiceError:
    """404: there is no such user, or none with such a taste."""
    return ServiceError(404, "user_not_found" if taste_of(name) is None else "taste_not_found")


def choice_out(services: Services, choice: Choice, *, counts: bool) -> ChoiceOut:
    own_ids = (choice.image_0_id, choice.image_1_id)
    images, caption = services.pool.picture_urls(choice.pair_id, own_ids), choice.caption
    found = None if choice.against is None else picture_against(services.pool, choice.against)
    if found is not None:
        images.append(pair_url(found[1].file))
        caption = caption or found[0]  # of a picture without one, what it was taken for
    return ChoiceOut(
        id=choice.pk,
        origin=_origin(choice),
        against=None if choice.against is None else AgainstOut(**choice.against),
        counts=counts,
        pair_id=choice.pair_id,
        caption=caption,
        images=images,
        preferred=choice.preferred,
        created_at=choice.created_at,
    )


async def what_is_foretold(
    store: Store, services: Services, user: User | None, profile: Profile | None
) -> Foretold | None:
    """How often the pictures that this person gets now will please, where it was measured.

    Not where words of their own stand beside the answers, or not every answer could be read.
    """
    if user is None or profile is None or profile.given_text is not None:
        return None
    if profile.answers_used != len(profile.choices):
        return None
    versions = await services.worker.versions()
    if versions is None:
        return None
    adapter_version = versions.adapter_version
    if not versions.adapter_overrides:
        serving = await store.adapters.serving()
        adapter_version = serving.adapter_of(user.person_pk) or adapter_version
    return foretold(services.pool, profile.choices, profile.encoder_version, adapter_version)


def _origin(choice: Choice) -> Literal["pool", "own", "made", "liked"]:
    if choice.pair_id is not None:
        return "pool"
    if choice.image_1_id is None:
        return "liked"
    return "own" if choice.made is None else "made"


def profile_out(profile: Profile, of: Foretold | None = None) -> ProfileOut:
    """A ready profile as clients see it, and what is foretold of it."""
    assert profile.text is not None
    return ProfileOut(
        text=profile.text,
        likes=profile.likes or [],
        dislikes=profile.dislikes or [],
        not_understood=profile.unread or [],
        answers_used=_answers_used(profile),
        confidence=None if of is None else _rounded(of.now),
        confidence_after_four_more=None if of is None else _rounded(of.after_four_more),
    )


def version_out(profile: Profile) -> ProfileVersionOut:
    return ProfileVersionOut(
        version=profile.version,
        source=profile.source,  # type: ignore[arg-type]
        status=profile.status,  # type: ignore[arg-type]
        text=profile.text,
        likes=profile.likes or [],
        dislikes=profile.dislikes or [],
        answers_used=_answers_used(profile),
        encoder_version=profile.encoder_version,
        created_at=profile.created_at,
    )


def _answers_used(profile: Profile) -> int:
    """Of a version that is not read, or was before this was counted: all of its answers."""
    return len(profile.choices) if profile.answers_used is None else profile.answers_used


def _rounded(chance: float | None) -> float | None:
    return None if chance is None else round(chance, 3)


def _person(caller: Caller, user_id: str) -> str:
    return f"{caller.tenant}/{user_id}"


def _choice_row(
    services: Services,
    caller: Caller,
    user: User,
    choice: ChoiceIn,
    made: MadePair | None,
    images: list[Image],
) -> Choice:
    if choice.pair_id is not None:
        pair = services.pool.get(choice.pair_id)
        assert pair is not None
        order = sides(_person(caller, user.user_id), pair.pair_id)
        return Choice(
            user_pk=user.pk,
            pair_id=pair.pair_id,
            caption=pair.caption,
            preferred=choice.preferred,
            swapped=order == (1, 0),
        )
    return Choice(
        user_pk=user.pk,
        caption=choice.caption if made is None else made.caption,
        image_0_id=images[0].id,
        image_1_id=images[1].id,
        preferred=choice.preferred,
        made=None if made is None else made.made,
    )


async def _once_with_pictures(
    services: Services, once: Once, work: Work, read_pictures: Prepare, stored_keys: Sequence[str]
) -> dict[str, Any]:
    """What `once.do` gives; where it fails, pictures that `work` had stored go again."""
    try:
        return await once.do(work, read_pictures)
    except Exception:  # no cancellation: it may come after the commit, and has no time to look
        await delete_leftovers(services, stored_keys)
        raise


async def _begin(
    store: Store, services: Services, caller: Caller, user: User, decided_in_post: int
) -> tuple[dict[str, Any], list[Job]]:
    """After answers were stored: begin an encoding if there is cause for one."""
    answers = await store.choices.read_from(user)
    if not begins_encoding(decided_in_post, len(answers)):
        return {"profile_pk": None, "job_id": None}, []
    encoding = await queue_encoding(
        store,
        services,
        services.limits,
        caller,
        user,
        encoder_version=await services.worker.encoder_version(),
        choices=answers,
    )
    return encoding.ids, encoding.overtaken


def _not_read(body: PreferencesIn, services: Services) -> list[WarningOut]:
    words = services.capabilities.caption_words
    return [
        WarningOut.model_validate(warning)
        for i, choice in enumerate(body.choices)
        if choice.caption is not None and words is not None
        for warning in caption_not_read(f"/choices/{i}/caption", choice.caption, words)
    ]


def _announce(services: Services, overtaken: list[Job], job_id: str | None) -> None:
    for job in overtaken:
        services.events.publish(job.id, status_event(job.seq, "canceled"))
    if job_id is not None:
        services.signals.ring()


async def _present(
    name: str,
    accepted: dict[str, Any],
    request: Request,
    response: Response,
    caller: Caller,
    services: Services,
    wait_s: float | None,
) -> PreferencesStateOut:
    """How the profile stands now, or when it is ready if the client waits."""
    job_id = accepted["job_id"]
    if wait_s is not None and job_id is not None:
        await wait_if_asked(request, response, caller, job_id, wait_s)
    async with services.database.read() as store:
        user = await found_user(store, caller, name)
        answered = await store.choices.count(user.pk)
        read = await store.choices.read_from(user)
        profile = await _standing(store, user, accepted["profile_pk"])
        if job_id is None and profile is not None:
            job = await store.jobs.of_profile(profile.pk)
            job_id = job.id if job is not None else None
        of = await what_is_foretold(store, services, user, profile)
    state = profile_state(profile.status if profile is not None else None)
    error = None
    if profile is not None and profile.error_code is not None:
        error = ErrorOut(code=profile.error_code, detail=CODES.get(profile.error_code, ""))
    of_taste = "" if taste_of(name) is None else f"?taste={taste_of(name)}"
    links = {of: f"/users/{person_of(name)}/{of}{of_taste}" for of in ("preferences", "quiz")}
    if job_id is not None:
        links |= {"job": f"/jobs/{job_id}", "events": f"/jobs/{job_id}/events"}
    response.status_code = 200 if state in ("ready", "failed") else 202
    return PreferencesStateOut(
        user_id=person_of(name),
        taste=taste_of(name),
        profile_version=profile.version if profile is not None else None,
        status=state,
        choices=answered,
        needed=needed(len(read)),
        profile=profile_out(profile, of) if profile is not None and state == "ready" else None,
        error=error,
        links=links,
    )


async def _standing(store: Store, user: User, profile_pk: str | None) -> Profile | None:
    """The version that this request began; else, or when it was overtaken, the newest one."""
    if profile_pk is not None:
        profile = await store.profiles.get(profile_pk)
        if profile is not None and profile.status != "superseded":
            return profile
    return await store.profiles.standing(user.pk)
