"""Errors in OpenAI's shape, for every address under /v1."""

import json
from typing import Any

from pydantic import BaseModel
from starlette.responses import Response
from starlette.types import Scope

from service.core.errors import FieldError, ServiceError

_CODES = {
    "unauthorized": "invalid_api_key",
    "too_many_jobs": "rate_limit_exceeded",
    "too_many_streams": "rate_limit_exceeded",
    "rate_limited": "rate_limit_exceeded",
    "gpu_quota": "insufficient_quota",
    "not_found": "unknown_url",
    "content_refused": "moderation_blocked",
}
"""OpenAI's word where its clients look for one; our own code elsewhere."""


class OpenAIErrorDetail(BaseModel):
    """Why a call was refused. `param` names the field; `type` the kind of error."""

    message: str
    type: str
    param: str | None
    code: str


class OpenAIErrorOut(BaseModel):
    """OpenAI's shape of an error."""

    error: OpenAIErrorDetail


OPENAI_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": OpenAIErrorOut, "description": "Refused; see `error.code`."}
    for status in ("4XX", "422", "503", "5XX")
}


def is_openai(scope: Scope) -> bool:
    """Whether the answer goes to a client that reads OpenAI's shapes."""
    return str(scope.get("path", "")).startswith("/v1/")


def openai_error(error: ServiceError, headers: dict[str, str]) -> Response:
    """The response for an error. What is 422 elsewhere is 400 here, as OpenAI's clients expect."""
    return Response(
        json.dumps(error_body(error), ensure_ascii=True),
        status_code=400 if error.status == 422 else error.status,
        headers=headers,
        media_type="application/json",
    )


def error_body(error: ServiceError) -> dict[str, Any]:
    """An error in OpenAI's shape."""
    faults = [f"{_param(fault) or 'request'}: {fault.message}." for fault in error.errors]
    told = OpenAIErrorOut(
        error=OpenAIErrorDetail(
            message=" ".join([error.detail, *faults]),
            type=_type(error.status),
            param=_param(error.errors[0]) if error.errors else None,
            code=_CODES.get(error.code, error.code),
        )
    )
    return told.model_dump()


def _param(fault: FieldError) -> str | None:
    return fault.pointer.lstrip("/") or None


def _type(status: int) -> str:
    if status >= 500:
        return "server_error"
    if status == 429:
        return "rate_limit_error"
    return "invalid_request_error"
