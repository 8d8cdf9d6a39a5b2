"""One request to S3 and what comes of it: its line in the log, and how S3 says no.

It must not know why it does, nor what is kept.
"""

import re
import secrets
from dataclasses import dataclass
from xml.sax.saxutils import escape

from starlette.responses import Response
from starlette.types import Message, Send

from dispatcher.emulator.faults import Kind, Refusal
from dispatcher.emulator.gate import WRONG_REGION
from dispatcher.emulator.keys import SessionKeys
from dispatcher.emulator.logs import Log
from dispatcher.emulator.machine import Machine
from dispatcher.emulator.operations import Asked

CODE = re.compile(rb'<Code>([0-9A-Za-z.]+)</Code>|"__type": "([0-9A-Za-z]+)"')


@dataclass
class Exchange:
    """`keys`: the job's that it is signed with. `region`: the bucket's. `size`: bytes that came."""

    asked: Asked
    machine: Machine
    log: Log
    keys: SessionKeys | None
    region: str | None
    fault: Kind | None = None
    size: int = 0
    sent: int = 0
    status: int | None = None
    error: str | None = None
    noted: bool = False
    announced: int | None = None

    @property
    def job_id(self) -> str | None:
        return None if self.keys is None else self.keys.job_id

    def note(self) -> None:
        """Once: before the last byte leaves, lest the caller asks for the log and finds nothing."""
        if self.noted:
            return
        self.noted = True
        went_well = self.status is not None and self.status < 400
        entry = {
            "at": self.machine.advance(),
            "operation": self.asked.operation,
            "bucket": self.asked.bucket,
            "key": self.asked.key,
            "jobId": self.job_id,
            "status": self.status,
            "error": self.error,
            "fault": self.fault,
            "bytes": (self.size or self.sent) if went_well else 0,
        }
        self.log.add(entry)

    def listen(self, send: Send) -> Send:
        async def heard(message: Message) -> None:
            self._hear(message)
            await send(message)

        return heard

    def _hear(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._hear_head(message)
            return
        body = message.get("body", b"")
        self.sent += len(body)
        if (self.status or 0) >= 400 and self.error is None:
            found = CODE.search(body)
            self.error = None if found is None else (found[1] or found[2]).decode()
        if not message.get("more_body") or self.sent == self.announced:
            self.note()

    def _hear_head(self, message: Message) -> None:
        self.status = message["status"]
        length = dict(message["headers"]).get(b"content-length")
        self.announced = None if length is None else int(length)
        if self.asked.method == "HEAD" or self.announced == 0 or self.status in {204, 304}:
            self.note()

    def refuse(self, refusal: Refusal) -> Response:
        """S3's answer. To a HEAD it says nothing but the status."""
        self.status, self.error = refusal.status, refusal.code
        self.note()
        headers = {"x-amz-request-id": secrets.token_hex(8).upper()}
        told = refusal.code == WRONG_REGION or self.asked.operation == "HeadBucket"
        if told and self.region is not None:
            headers["x-amz-bucket-region"] = self.region
        if "expect" in self.asked.headers:
            headers["Connection"] = "close"  # the body that was announced will not come
        if self.asked.method == "HEAD":
            return Response(status_code=refusal.status, headers=headers)
        body = error_body(refusal, self.region, headers["x-amz-request-id"])
        return Response(body, refusal.status, headers, media_type="application/xml")


def error_body(refusal: Refusal, region: str | None, request_id: str) -> str:
    members = {"Code": refusal.code, "Message": refusal.message}
    if refusal.code == WRONG_REGION:
        members["Region"] = region or ""
    members |= {"RequestId": request_id, "HostId": "emulator"}
    inner = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in members.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inner}</Error>'
