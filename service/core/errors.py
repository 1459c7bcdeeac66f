"""Expected refusals, each with a status and a stable code that clients may rely on."""

from collections.abc import Mapping
from dataclasses import dataclass

CODES: Mapping[str, str] = {
    "unauthorized": "No valid API key or browser session came with the request.",
    "admin_only": "The routes under /admin are for keys of the scope admin.",
    "forbidden_origin": "A browser session may change things only from the service's own pages.",
    "unknown_host": "The service does not answer under this name; see PPD_ALLOWED_HOSTS.",
    "not_found": "There is no such address.",
    "not_one_prompt": "These are not two pictures that were made of one prompt.",
    "answer_not_found": "This user gave no such answer.",
    "user_not_found": "This tenant has no such user.",
    "taste_not_found": "This user has no such taste.",
    "too_many_tastes": "This user has as many tastes as one person may have.",
    "taste_gone": "A taste that the pictures were to be in was deleted before they were made.",
    "share_not_found": "No taste is shared under this code: it never was, or is no more.",
    "too_many_shares": "This user shares tastes under as many codes as one person may.",
    "job_not_found": "This tenant has no such job.",
    "image_not_found": "This tenant has no such image.",
    "image_taken_down": "The picture was taken down by those who run the service.",
    "report_not_found": "There is no such report.",
    "report_decided": "The report was decided on before.",
    "key_not_found": "There is no such key in use.",
    "own_key": "A key does not revoke itself; another admin key does, or `ppd keys revoke`.",
    "model_not_found": "This model is not served; GET /v1/models names the one that is.",
    "reading_kept": "A reading goes with its person; only jobs for pictures are erased alone.",
    "pair_not_found": "The pool has no such pair.",
    "adapter_not_found": "No adapter of this version is kept here.",
    "adapter_refused": "The adapter does not fit the models that are running.",
    "adapter_unavailable": "The adapter that the job was to be made with cannot be had.",
    "no_earlier_adapter": "There is no earlier adapter to go back to.",
    "method_not_allowed": "This address does not answer that method.",
    "malformed_body": "The body is not a JSON object in UTF-8 without repeated names.",
    "unsupported_media_type": "Bodies are application/json.",
    "body_too_large": "The body is larger than the service reads.",
    "invalid_request": "A field is missing, unknown, of the wrong type or outside its limits.",
    "invalid_image": "A picture cannot be read, or is not within the limits; `errors` says why.",
    "picture_too_large": "A picture's file, or all of a request's, have too many bytes.",
    "invalid_idempotency_key": "Idempotency-Key is 1 to 255 printable ASCII characters.",
    "idempotency_key_reused": "This Idempotency-Key was used before with another request.",
    "idempotency_key_in_flight": "The first request with this Idempotency-Key still runs.",
    "too_many_jobs": "This caller already has its share of the waiting jobs.",
    "rate_limited": "This caller asks more often than it may; Retry-After says when it may again.",
    "gpu_quota": "The models have worked for this person, key or address as long as they may.",
    "too_many_streams": "This caller already has its share of the open event streams.",
    "busy": "The service holds as many large requests as it takes at once.",
    "too_much_at_once": "This caller already has its share of what is read at once.",
    "streams_full": "The service already has as many open event streams as it holds.",
    "queue_full": "The service already has as many waiting jobs as it takes.",
    "content_refused": "This is not allowed here; `errors` name the place and the class of reason.",
    "moderation_unavailable": "What judges content here does not answer; nothing was accepted.",
    "upload_quota": "This person's own pictures would take more room than they may.",
    "database": "The database does not answer; it is not known whether what was sent was stored.",
    "storage": "A stored picture could not be read back as it was written.",
    "signing": "The picture could not be signed now.",
    "sessions_full": "Browser sessions together keep as much here as they may.",
    "address_full": "Browser sessions of this address keep as much here as is left for others.",
    "session_ended": "The session ended with its person; a page of the service begins another.",
    "storage_full": "The image store has no room for further pictures; nothing was stored.",
    "worker_crash": "The job was started three times and never finished.",
    "worker_not_started": "The worker did not start, so nobody runs jobs; see /health/ready.",
    "encoder_invalid": "The encoder gave an embedding that cannot be used.",
    "nothing_read": "The reading came to no profile; the profile before it stays.",
    "unreadable_prompt": "The model knows no word of the prompt; GET /vocabulary names its words.",
    "no_word_read": "The text has no word that the model knows or, alone, none that names a look.",
    "numerical_error": "The model gave values that are not finite.",
    "out_of_memory": "The model ran out of memory on this job; a smaller one may fit.",
    "deadline_exceeded": "The job had not been made in the time that a job may run.",
    "model_error": "The model failed on this job.",
    "still_running": "The job has not ended in the time that a request may wait; it goes on.",
    "canceled": "The job was canceled.",
    "expired": "The job waited longer than it may.",
    "internal": "The service failed; the request id finds the reason in its log.",
    "http_error": "The request was refused.",
}


@dataclass(frozen=True)
class FieldError:
    """One fault of a body: `pointer` is a JSON pointer; `message` never repeats the input."""

    pointer: str
    message: str


class ServiceError(Exception):
    """A refusal with an HTTP status and a code out of `CODES`."""

    def __init__(
        self,
        status: int,
        code: str,
        detail: str | None = None,
        *,
        errors: tuple[FieldError, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        assert code in CODES, code
        super().__init__(code)
        self.status = status
        self.code = code
        self.detail = detail or CODES[code]
        self.errors = errors
        self.headers = dict(headers or {})


class DatabaseAway(ServiceError):  # noqa: N818 - it is the name of the state
    """The database does not answer, or not in time: worth another try."""

    def __init__(self) -> None:
        super().__init__(503, "database", headers={"Retry-After": "5"})


def invalid(pointer: str, message: str, code: str = "invalid_request") -> ServiceError:
    """A 422 for one field that no schema can check."""
    return ServiceError(422, code, errors=(FieldError(pointer, message),))


class StorageFull(OSError):  # noqa: N818 - it is the name of the state
    """The image store takes no further picture; what was to be stored was not."""


class JobFailure(Exception):  # noqa: N818 - it is the name of the outcome
    """A job that cannot be done; `code` (out of `CODES`) and `detail` are stored with it."""

    def __init__(self, code: str, detail: str | None = None) -> None:
        assert code in CODES, code
        super().__init__(code)
        self.code = code
        self.detail = detail or CODES[code]


class JobCanceled(Exception):  # noqa: N818 - it is the name of the outcome
    """Raised out of the model at the step after somebody canceled the job."""


class ModelLost(Exception):  # noqa: N818 - it is the name of the state
    """The model makes no pictures any more in this process; the job is not to blame for it."""
