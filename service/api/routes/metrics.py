"""What Prometheus reads. It holds no personal data; PPD_METRICS says who may read it."""

from fastapi import APIRouter, Request
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.responses import Response

from service.api.deps import CountedRoute, ServicesDep, authenticate
from service.core.errors import ServiceError
from service.infra.metrics import text

router = APIRouter(include_in_schema=False, route_class=CountedRoute)


@router.get("/metrics")
async def metrics(request: Request, services: ServicesDep) -> Response:
    """This process's numbers, and the queue's."""
    if services.metrics_access == "off":
        raise ServiceError(404, "not_found")
    if services.metrics_access == "admin":
        caller = await authenticate(request)
        if caller.scope_of_key != "admin":
            raise ServiceError(404, "not_found")
    queue = await services.queue_metrics.registry()
    body = text((services.metrics.registry, queue))
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)
