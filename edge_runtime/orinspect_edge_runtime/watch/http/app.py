"""Every address and what answers it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.concurrency import iterate_in_threadpool, run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from orinspect_edge_runtime.errors import InputError
from orinspect_edge_runtime.watch.http import openapi, requests
from orinspect_edge_runtime.watch.http.answers import HANDLERS
from orinspect_edge_runtime.watch.http.feedback import told
from orinspect_edge_runtime.watch.http.guard import Guard
from orinspect_edge_runtime.watch.http.session import COOKIE, LIFETIME_S
from orinspect_edge_runtime.watch.http.teach import Lesson

if TYPE_CHECKING:
    from orinspect_edge_runtime.watch.http.service import Service

PAGE = files("orinspect_edge_runtime.watch.http") / "page"
FILES = {
    "/": ("index.html", "text/html"),
    "/dashboard.css": ("dashboard.css", "text/css"),
    "/dashboard.js": ("dashboard.js", "text/javascript"),
    "/chart.js": ("chart.js", "text/javascript"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
WRONG_TOKEN = '<p role="alert">That is not the token. It stands in the configuration, [http] token.</p>'
MOST_ROWS, MOST_DOWNLOADED, WAITING_IMAGES = 500, 1_000_000, 4
NO_NUMBER = 2**62


@dataclass(frozen=True)
class Remark:
    """What may come with a feedback."""

    note: str = ""


@dataclass(frozen=True)
class Asked:
    """What may come with a trigger: the recipe to judge by, empty for the one in use."""

    recipe: str = ""


class Pages:
    """The handlers; each takes a request and answers it from the service's parts."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._waiting = 0

    async def login_form(self, request: Request) -> Response:
        return HTMLResponse((PAGE / "login.html").read_text(encoding="utf-8"))

    async def login(self, request: Request) -> Response:
        async with request.form(max_files=0, max_fields=4) as form:
            token = form.get("token")
        door = self._service.door
        if not isinstance(token, str) or not (door.is_open or door.knows(token)):
            text = (PAGE / "login.html").read_text(encoding="utf-8").replace("<!-- wrong token -->", WRONG_TOKEN)
            return HTMLResponse(text, 401)
        answer = RedirectResponse("/", 303)
        secure = request.url.scheme == "https"
        answer.set_cookie(COOKIE, door.cookie(), LIFETIME_S, httponly=True, samesite="strict", secure=secure)
        return answer

    async def logout(self, request: Request) -> Response:
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, httponly=True, samesite="strict")
        return answer

    async def status(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._service.status))

    async def events(self, request: Request) -> Response:
        last = request.headers.get("last-event-id", "")
        number = int(last) if last.isascii() and last.isdecimal() and len(last) < 20 else None
        return StreamingResponse(self._service.stream.messages(number), media_type="text/event-stream")

    async def live(self, request: Request) -> Response:
        heat = request.query_params.get("heat", "1") != "0"
        drawn = await run_in_threadpool(self._service.live.jpeg, heat)
        if drawn is None:
            return Response(status_code=204)
        sight, content = drawn
        seen = {"x-frame-number": str(sight.number), "x-outcome": sight.outcome}
        return Response(content, headers=seen, media_type="image/jpeg")

    async def verdicts(self, request: Request) -> Response:
        before = requests.number(request, "before", NO_NUMBER, NO_NUMBER)
        limit = requests.number(request, "limit", 50, MOST_ROWS)
        rows = await run_in_threadpool(self._service.records.page, before, limit, requests.outcomes(request))
        return JSONResponse({"verdicts": rows, "before": rows[-1]["seq"] if len(rows) == limit else None})

    async def verdict(self, request: Request) -> Response:
        return JSONResponse(await run_in_threadpool(self._service.records.verdict, request.path_params["id"]))

    async def picture(self, request: Request) -> Response:
        event_id, kind = request.path_params["id"], request.path_params["kind"]
        if kind not in ("picture", "map"):
            raise HTTPException(404)
        content = await run_in_threadpool(self._service.records.picture, event_id, kind)
        # A verdict's pictures never change.
        return Response(content, headers={"cache-control": "private, max-age=86400"}, media_type="image/jpeg")

    async def csv(self, request: Request) -> Response:
        return self._download(request, self._service.records.csv, "text/csv", "verdicts.csv")

    async def zip(self, request: Request) -> Response:
        return self._download(request, self._service.records.zip, "application/zip", "verdicts.zip")

    def _download(self, request: Request, make: Callable[..., Any], kind: str, name: str) -> Response:
        most = requests.number(request, "limit", 10_000, MOST_DOWNLOADED)
        content = iterate_in_threadpool(make(requests.outcomes(request), most))
        named = {"content-disposition": f'attachment; filename="{name}"'}
        return StreamingResponse(content, headers=named, media_type=kind)

    async def score(self, request: Request) -> Response:
        content = await requests.image(request)
        if self._waiting >= WAITING_IMAGES:
            raise HTTPException(503, "busy with other images: try again in a second", {"retry-after": "1"})
        self._waiting += 1
        try:
            return JSONResponse(await run_in_threadpool(self._service.scoring.verdict, content))
        finally:
            self._waiting -= 1

    async def recipes(self, request: Request) -> Response:
        names = await run_in_threadpool(self._service.switch.names)
        return JSONResponse({"recipes": names, "running": self._service.switch.running})

    async def run_recipe(self, request: Request) -> Response:
        await run_in_threadpool(self._service.switch.to, await self._recipe(request))
        return JSONResponse({"running": self._service.switch.running})

    async def history(self, request: Request) -> Response:
        edits = await run_in_threadpool(self._service.feedback.history, await self._recipe(request))
        return JSONResponse({"edits": [told(edit) for edit in edits]})

    async def undo(self, request: Request) -> Response:
        return JSONResponse(told(await run_in_threadpool(self._service.feedback.undo, await self._recipe(request))))

    async def fine(self, request: Request) -> Response:
        remark = await requests.fields(request, Remark)
        edit = await run_in_threadpool(self._service.feedback.fine, request.path_params["id"], remark.note)
        return JSONResponse(told(edit))

    async def _recipe(self, request: Request) -> str:
        """The recipe that the address names."""
        name, names = str(request.path_params["name"]), await run_in_threadpool(self._service.switch.names)
        if name not in names:
            raise HTTPException(404, f"the bundle has no recipe {name[:64]!r}: there are {', '.join(names)}")
        return name

    async def trigger(self, request: Request) -> Response:
        asked = await requests.fields(request, Asked)
        trigger = self._service.trigger
        if trigger is None:
            raise HTTPException(409, "no [trigger] is configured: frames are judged as they come")
        return JSONResponse({"taken": trigger.fire(asked.recipe, "http")})

    async def teach(self, request: Request) -> Response:
        return JSONResponse(self._service.teach.status())

    async def start_teach(self, request: Request) -> Response:
        lesson = await requests.fields(request, Lesson)
        if not lesson.replace and lesson.name in await run_in_threadpool(self._service.switch.names):
            raise InputError(f"there is a recipe {lesson.name!r} already: choose another name, or set replace")
        await run_in_threadpool(self._service.teach.start, lesson)
        return JSONResponse(self._service.teach.status(), 202)

    async def cancel_teach(self, request: Request) -> Response:
        await run_in_threadpool(self._service.teach.cancel)
        return JSONResponse(self._service.teach.status())

    async def document(self, request: Request) -> Response:
        return JSONResponse(openapi.document())

    async def metrics(self, request: Request) -> Response:
        from prometheus_client import CONTENT_TYPE_LATEST

        content = await run_in_threadpool(self._service.metrics.text)
        return Response(content, headers={"content-type": CONTENT_TYPE_LATEST})


def file_page(path: str) -> Callable[[Request], Any]:
    """Handler of one of FILES, read once."""
    name, kind = FILES[path]
    content = (PAGE / name).read_bytes()

    async def answer(request: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def routes(pages: Pages) -> list[Route]:
    """Every address."""
    table: tuple[tuple[str, str, Any], ...] = (
        ("GET", "/login", pages.login_form),
        ("POST", "/login", pages.login),
        ("POST", "/logout", pages.logout),
        ("GET", "/openapi.json", pages.document),
        ("GET", "/metrics", pages.metrics),
        ("GET", "/api/status", pages.status),
        ("GET", "/api/events", pages.events),
        ("GET", "/api/live.jpg", pages.live),
        ("GET", "/api/verdicts", pages.verdicts),
        ("GET", "/api/verdicts.csv", pages.csv),
        ("GET", "/api/verdicts.zip", pages.zip),
        ("GET", "/api/verdicts/{id}", pages.verdict),
        ("GET", "/api/verdicts/{id}/{kind}.jpg", pages.picture),
        ("POST", "/api/score", pages.score),
        ("GET", "/api/recipes", pages.recipes),
        ("POST", "/api/recipes/{name}/run", pages.run_recipe),
        ("GET", "/api/recipes/{name}/history", pages.history),
        ("POST", "/api/recipes/{name}/undo", pages.undo),
        ("POST", "/api/verdicts/{id}/fine", pages.fine),
        ("POST", "/api/trigger", pages.trigger),
        ("GET", "/api/teach", pages.teach),
        ("POST", "/api/teach", pages.start_teach),
        ("DELETE", "/api/teach", pages.cancel_teach),
    )
    return [Route(path, handler, methods=[method]) for method, path, handler in table] + [
        Route(path, file_page(path), methods=["GET"]) for path in FILES
    ]


def make_app(service: Service) -> Guard:
    """The application behind its guard."""
    app = Starlette(routes=routes(Pages(service)), exception_handlers=HANDLERS)
    # An address with a slash too many is wrong, not elsewhere.
    app.router.redirect_slashes = False
    config = service.config
    return Guard(app, service.door, config.names, config.upload_mib << 20)
