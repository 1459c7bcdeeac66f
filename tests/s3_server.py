"""A small server of the S3 protocol for tests: what the image store asks of one, and faults.

It is nobody's product. It holds objects in memory, checks Signature Version 4 and the checksums of
bodies, and knows PutObject, GetObject, HeadObject, DeleteObject, DeleteObjects and ListObjectsV2.
"""

import contextlib
import hashlib
import hmac
import socket
import struct
import threading
from base64 import b64encode
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION = "test-access-key", "test-secret-access-key", "test-1"
PAGE = 100
"""Keys per page of a list; Amazon's has a thousand."""

Fault = Literal["500", "507", "slow", "reset", "cut"]
"""cut: half of a GET's body and the end of the connection; slow: every answer takes a minute."""


@dataclass
class Bucket:
    """The one bucket, what is wrong with it now, and what was asked of it."""

    port: int
    objects: MutableMapping[str, bytes] = field(default_factory=dict)
    stored_at: MutableMapping[str, datetime] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    """The next requests meet these, one each."""
    fault: Fault | None = None
    """Every request meets this one."""
    requests: list[tuple[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    name: str = "pictures"
    access_key_id: str = ACCESS_KEY_ID
    secret_access_key: str = SECRET_ACCESS_KEY
    health: str | None = None
    """A path that answers without a signature."""

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def config(self) -> dict[str, str]:
        return {
            "endpoint": self.endpoint,
            "region": REGION,
            "access_key_id": ACCESS_KEY_ID,
            "secret_access_key": SECRET_ACCESS_KEY,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """For `Settings`."""
        return {
            "images_url": "s3://pictures/test",
            "s3_endpoint": self.endpoint,
            "s3_region": REGION,
            "s3_access_key_id": ACCESS_KEY_ID,
            "s3_secret_access_key": SECRET_ACCESS_KEY,
        }

    @property
    def keys(self) -> set[str]:
        """The keys below the prefix `test`."""
        return {key.removeprefix("test/") for key in self.objects}

    def age(self, key: str, at: datetime) -> None:
        """Let an object have been stored at another time."""
        self.stored_at[f"test/{key}"] = at


@contextlib.contextmanager
def s3_server() -> Iterator[Bucket]:
    """A server with the empty bucket `pictures`."""
    server = _Server(("127.0.0.1", 0), _Handler)
    bucket = Bucket(server.server_address[1])
    server.bucket = bucket
    serving = threading.Thread(target=server.serve_forever, args=(0.02,))
    serving.start()
    try:
        yield bucket
    finally:
        bucket.released.set()
        server.shutdown()
        serving.join(30)
        server.server_close()


def serve(bucket: Bucket, host: str) -> None:
    """A bucket of somebody's own, for ever."""
    server = _Server((host, bucket.port), _Handler)
    server.bucket = bucket
    server.serve_forever()


class _Server(ThreadingHTTPServer):
    bucket: Bucket
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away; the tests look at the client."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = 60
    disable_nagle_algorithm = True

    def do_PUT(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _serve(self) -> None:
        bucket, url = self.server.bucket, urlsplit(self.path)
        size = int(self.headers.get("content-length", 0))
        body = self.rfile.read(size)
        if len(body) < size:  # an upload that broke off: nothing of it is kept
            self.close_connection = True
            return
        bucket.requests.append((self.command, self.path))
        fault = bucket.fault or (bucket.faults.pop(0) if bucket.faults else None)
        if fault == "reset":
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self.close_connection = True
            self.connection.close()
            return
        if fault == "slow":
            bucket.released.wait(60)
        if fault == "500":
            return self._error(500, "InternalError")
        if fault == "507":
            return self._error(507, "XMinioStorageFull")
        if bucket.health and url.path == bucket.health:
            return self._answer(200, b"ok")
        if not self._signed(url.path, url.query, body):
            return self._error(403, "SignatureDoesNotMatch")
        name, _, key = unquote(url.path).removeprefix("/").partition("/")
        if name != bucket.name:
            return self._error(404, "NoSuchBucket")
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        if not key:
            return self._bucket(query, body)
        self._object(key, body, cut=fault == "cut")

    def _object(self, key: str, body: bytes, *, cut: bool) -> None:
        bucket = self.server.bucket
        if self.command == "PUT":
            bucket.objects[key] = body
            bucket.stored_at[key] = datetime.now(UTC)
            return self._answer(200, b"", {"ETag": f'"{hashlib.md5(body).hexdigest()}"'})
        if self.command == "DELETE":
            bucket.objects.pop(key, None)
            return self._answer(204)
        data = bucket.objects.get(key)
        if data is None:
            return self._error(404, "NoSuchKey")
        stored_at = bucket.stored_at[key].strftime("%a, %d %b %Y %H:%M:%S GMT")
        headers = {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": stored_at}
        self._answer(200, data, headers, cut=cut)

    def _bucket(self, query: dict[str, str], body: bytes) -> None:
        bucket = self.server.bucket
        if self.command == "POST" and "delete" in query:
            keys = [one.text or "" for one in ElementTree.fromstring(body).iter() if _is_key(one)]
            for key in keys:
                bucket.objects.pop(key, None)
            gone = "".join(f"<Deleted><Key>{escape(key)}</Key></Deleted>" for key in keys)
            return self._answer(200, f"<DeleteResult>{gone}</DeleteResult>".encode())
        if self.command == "GET" and query.get("list-type") == "2":
            after = query.get("continuation-token", query.get("start-after", ""))
            prefix = query.get("prefix", "")
            found = sorted(k for k in list(bucket.objects) if k.startswith(prefix) and k > after)
            page, more = found[:PAGE], len(found) > PAGE
            entries = "".join(
                f"<Contents><Key>{escape(key)}</Key><Size>{len(bucket.objects[key])}</Size>"
                f"<LastModified>{bucket.stored_at[key]:%Y-%m-%dT%H:%M:%S.000Z}</LastModified>"
                f"<ETag>x</ETag></Contents>"
                for key in page
            )
            token = f"<NextContinuationToken>{page[-1]}</NextContinuationToken>" if more else ""
            return self._answer(
                200,
                f"<ListBucketResult><IsTruncated>{str(more).lower()}</IsTruncated>{token}{entries}"
                f"<KeyCount>{len(page)}</KeyCount></ListBucketResult>".encode(),
            )
        self._error(405, "MethodNotAllowed")

    def _signed(self, path: str, query: str, body: bytes) -> bool:
        """Signature Version 4 of the headers, and the hash of the body that it covers."""
        scheme, _, rest = self.headers.get("authorization", "").partition(" ")
        given = dict(part.strip().partition("=")[::2] for part in rest.split(","))
        if scheme != "AWS4-HMAC-SHA256" or not given.keys() >= {"Credential", "SignedHeaders"}:
            return False
        access_key_id, *scope = given["Credential"].split("/")
        body_sha256 = hashlib.sha256(body).hexdigest()
        bucket = self.server.bucket
        if (
            access_key_id != bucket.access_key_id
            or self.headers["x-amz-content-sha256"] != body_sha256
        ):
            return False
        checksum = self.headers.get("x-amz-checksum-sha256")
        if checksum and checksum != b64encode(hashlib.sha256(body).digest()).decode():
            return False
        names = given["SignedHeaders"].split(";")
        pairs = sorted(parse_qsl(query, keep_blank_values=True))
        canonical = "\n".join(
            [
                self.command,
                path,
                "&".join(
                    f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs
                ),
                *(f"{name}:{' '.join((self.headers[name] or '').split())}" for name in names),
                "",
                ";".join(names),
                body_sha256,
            ]
        )
        key = f"AWS4{bucket.secret_access_key}".encode()
        for part in scope:
            key = hmac.digest(key, part.encode(), "sha256")
        signed = "\n".join(
            [
                scheme,
                self.headers["x-amz-date"],
                "/".join(scope),
                hashlib.sha256(canonical.encode()).hexdigest(),
            ]
        )
        signature = hmac.digest(key, signed.encode(), "sha256").hex()
        return hmac.compare_digest(signature, given.get("Signature", ""))

    def _error(self, status: int, code: str) -> None:
        self._answer(
            status, f"<Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
        )

    def _answer(
        self,
        status: int,
        body: bytes = b"",
        headers: dict[str, str] | None = None,
        cut: bool = False,
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True


def _is_key(element: ElementTree.Element) -> bool:
    return element.tag.rpartition("}")[2] == "Key"
