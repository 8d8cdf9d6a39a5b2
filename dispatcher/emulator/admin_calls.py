"""The emulator's own calls over HTTP, under /_admin.

It must not know what they mean: `admin` reads and answers them.
"""

import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from dispatcher.emulator import admin, bodies, uploads
from dispatcher.emulator.content import chunks
from dispatcher.emulator.faults import Fault
from dispatcher.emulator.front import Front
from dispatcher.emulator.services import forget, objects


class AdminCalls:
    def __init__(self, front: Front) -> None:
        self.front = front

    def routes(self) -> list[Route]:
        return [
            Route("/_admin/jobs", self.add_jobs, methods=["POST"]),
            Route("/_admin/jobs", self.show_jobs, methods=["GET"]),
            Route("/_admin/jobs/{job_id}/{how}", self.end_job, methods=["POST"]),
            Route("/_admin/action-types", self.add_action_type, methods=["POST"]),
            Route("/_admin/log", self.show_log, methods=["GET"]),
            Route("/_admin/s3", self.show_object_log, methods=["GET"]),
            Route("/_admin/objects/{bucket}", self.add_bucket, methods=["PUT"]),
            Route("/_admin/objects/{bucket}/{key:path}", self.put_object, methods=["PUT"]),
            Route("/_admin/objects/{bucket}/{key:path}", self.get_object, methods=["GET"]),
            Route("/_admin/faults", self.add_faults, methods=["POST"]),
            Route("/_admin/faults", self.show_faults, methods=["GET"]),
            Route("/_admin/faults", self.remove_faults, methods=["DELETE"]),
            Route("/_admin/release", self.release, methods=["POST"]),
            Route("/_admin/clock", self.set_clock, methods=["POST"]),
            Route("/_admin/reset", self.reset, methods=["POST"]),
        ]

    async def add_jobs(self, http: Request) -> Response:
        return admin_answer(admin.add_jobs(self.front.machine, await read_admin(http)))

    async def add_action_type(self, http: Request) -> Response:
        return admin_answer(admin.add_action_type(self.front.machine, await read_admin(http)))

    async def show_jobs(self, http: Request) -> Response:
        admin.only(http.query_params, "id")
        return admin_answer(admin.show_jobs(self.front.machine, http.query_params.get("id")))

    async def end_job(self, http: Request) -> Response:
        admin.nothing(await read_admin(http, empty=b"{}"))
        job_id, how = http.path_params["job_id"], http.path_params["how"]
        return admin_answer(admin.end_job(self.front.machine, job_id, how))

    async def show_log(self, http: Request) -> Response:
        admin.only(http.query_params)
        return Response(self.front.log.text(), media_type="application/json")

    async def show_object_log(self, http: Request) -> Response:
        admin.only(http.query_params)
        return Response(self.front.object_log.text(), media_type="application/json")

    async def add_bucket(self, http: Request) -> Response:
        admin.only(http.query_params, "region")
        await run_in_threadpool(made_bucket, http)
        return admin_answer({})

    async def put_object(self, http: Request) -> Response:
        """Of any size; the bucket is made if there is none."""
        admin.only(http.query_params, "region")
        place = object_place(http)
        uploaded = await uploads.receive_all(http.receive, chunked=False)
        await run_in_threadpool(made_bucket, http)
        await run_in_threadpool(lambda: objects().put(*place, uploaded.content))
        return admin_answer({})

    async def get_object(self, http: Request) -> Response:
        admin.only(http.query_params)
        place = object_place(http)
        found = await run_in_threadpool(lambda: objects().get(*place))
        if found is None:
            return admin_answer({"error": "there is no such object"}, 404)
        size = {"Content-Length": str(len(found))}
        return StreamingResponse(chunks(found), headers=size, media_type="binary/octet-stream")

    async def add_faults(self, http: Request) -> Response:
        added = admin.add_faults(self.front.faults, await read_admin(http))
        return self.fault_answer(added)

    async def show_faults(self, http: Request) -> Response:
        admin.only(http.query_params)
        return self.fault_answer(self.front.faults.get())

    async def remove_faults(self, http: Request) -> Response:
        """What waits because of them goes on."""
        admin.only(http.query_params, "id")
        if await bodies.read(http):
            raise admin.AdminError("which fault to end is said by ?id=, not by a body")
        found = admin.find_faults(self.front.faults, http.query_params.get("id"))
        self.front.faults.remove(found)
        self.front.waits.release(fault.id for fault in found)
        return self.fault_answer(self.front.faults.get())

    async def release(self, http: Request) -> Response:
        found = admin.faults_to_release(self.front.faults, await read_admin(http))
        return admin_answer({"released": self.front.waits.release(fault.id for fault in found)})

    async def set_clock(self, http: Request) -> Response:
        self.front.offset = admin.clock_offset(await read_admin(http))
        return admin_answer({"offset": self.front.offset})

    async def reset(self, http: Request) -> Response:
        """As after a start: calls that wait get no answer, what moto holds is gone too."""
        options = admin.to_options(self.front.options, await read_admin(http, empty=b"{}"))
        self.front.waits.end()
        self.front.begin(options)
        await run_in_threadpool(forget)
        return admin_answer({})

    def fault_answer(self, faults: list[Fault]) -> Response:
        shown = [{**fault.show(), "held": self.front.waits.held(fault.id)} for fault in faults]
        return admin_answer({"faults": shown})


def object_place(http: Request) -> tuple[str, str]:
    bucket, key = http.path_params["bucket"], http.path_params["key"]
    if not key:
        raise admin.AdminError("the path of an object ends with its key")
    return bucket, key


def made_bucket(http: Request) -> None:
    try:
        objects().add_bucket(http.path_params["bucket"], http.query_params.get("region"))
    except ValueError as error:
        raise admin.AdminError(str(error)) from error


async def read_admin(http: Request, empty: bytes = b"") -> Any:
    admin.only(http.query_params)
    try:
        return bodies.decode(await bodies.read(http) or empty)
    except bodies.TooLargeError as error:
        raise admin.AdminError(str(error)) from error
    except ValueError as error:
        raise admin.AdminError(f"the body is not JSON: {error}") from error


def admin_answer(body: object, status: int = 200) -> Response:
    return Response(json.dumps(body), status, media_type="application/json")


async def wrong_admin_call(_http: Request, error: Exception) -> Response:
    return admin_answer({"error": str(error)}, 400)


async def no_such_path(http: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    return admin_answer({"error": f"nothing answers {http.method} {http.url.path}"}, status)
