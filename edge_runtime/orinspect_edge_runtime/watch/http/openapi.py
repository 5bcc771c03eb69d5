"""The REST interface described in OpenAPI 3.1, served as /openapi.json. A test holds it against the routes."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from orinspect_edge_runtime.fit import FEWEST_IMAGES
from orinspect_edge_runtime.watch.http.records import OUTCOMES
from orinspect_edge_runtime.watch.http.teach import LONGEST_PAUSE_S, MOST_FRAMES

Json = dict[str, Any]
TEXT, NUMBER, WHOLE, TRUTH = ({"type": kind} for kind in ("string", "number", "integer", "boolean"))
OUTCOME: Json = {"type": "string", "enum": list(OUTCOMES)}
NAME: Json = {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$"}


def document() -> Json:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "orinspect watch",
            "version": version("orinspect"),
            "description": "Errors are JSON, {error: a sentence}. Where a token is set, send it as a bearer token.",
        },
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
        "paths": PATHS,
    }


def _object(required: str, **properties: Json) -> Json:
    return {"type": "object", "required": required.split(), "properties": properties}


def _or_null(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


_JUDGED = {
    "outcome": OUTCOME,
    "threshold": NUMBER,
    "latency_ms": NUMBER,
    "recipe": TEXT,
    "recipe_sha256": TEXT,
    "graph_sha256": TEXT,
}
SCHEMAS: Json = {
    "Error": _object("error", error=TEXT),
    "Verdict": _object(
        "id judged_at outcome score threshold recipe",
        id=TEXT,
        captured_at=NUMBER,
        judged_at=NUMBER,
        source=TEXT,
        index=WHOLE,
        score=_or_null(NUMBER),
        error=TEXT,
        **_JUDGED,
    ),
    "Scored": _object(
        "outcome score threshold recipe width height",
        score=NUMBER,
        probability=NUMBER,
        width=WHOLE,
        height=WHOLE,
        **_JUDGED,
    ),
    "Page": _object("verdicts before", verdicts={"type": "array", "items": _ref("Verdict")}, before=_or_null(WHOLE)),
    "Status": _object("frames outcomes camera latency_ms sinks running teach board now told_at"),
    "Recipes": _object("recipes running", recipes={"type": "array", "items": TEXT}, running=TEXT),
    "Edit": _object(
        "number kind image at note message rows_added rows_removed threshold_before threshold_after",
        number=WHOLE,
        kind={"type": "string", "enum": ["add", "forget", "undo"]},
        image=TEXT,
        at=TEXT,
        note=TEXT,
        message=TEXT,
        rows_added=WHOLE,
        rows_removed=WHOLE,
        score_before=_or_null(NUMBER),
        score_after=_or_null(NUMBER),
        threshold_before=NUMBER,
        threshold_after=NUMBER,
    ),
    "Edits": _object("edits", edits={"type": "array", "items": {"$ref": "#/components/schemas/Edit"}}),
    "Remark": _object("", note=TEXT | {"default": ""}) | {"additionalProperties": False},
    "Trigger": _object("", recipe=TEXT | {"default": ""}) | {"additionalProperties": False},
    "Running": _object("running", running=TEXT),
    "Teach": _object(
        "state recipe taken wanted progress error",
        state={"type": "string", "enum": ["idle", "collecting", "fitting", "done", "failed", "cancelled"]},
        recipe=TEXT,
        taken=WHOLE,
        wanted=WHOLE,
        progress={"type": "number", "minimum": 0, "maximum": 1},
        error=TEXT,
    ),
    "Lesson": _object(
        "name",
        name=NAME,
        frames={"type": "integer", "minimum": FEWEST_IMAGES, "maximum": MOST_FRAMES, "default": 50},
        every_s={"type": "number", "minimum": 0, "maximum": LONGEST_PAUSE_S, "default": 0.5},
        replace=TRUTH | {"default": False},
        go_on=TRUTH | {"default": False},
    )
    | {"additionalProperties": False},
}


def _answers(good: Json | None, *codes: int, status: str = "200", kind: str = "application/json") -> Json:
    """The answer when all is well, and the errors that are this operation's own beside 400, 401, 403, 421 and 500."""
    content = {} if good is None else {"content": {kind: {"schema": good}}}
    errors = {str(code): {"$ref": "#/components/schemas/Error"} for code in sorted({400, 401, 403, 421, 500, *codes})}
    told = {
        code: {"description": "error", "content": {"application/json": {"schema": schema}}}
        for code, schema in errors.items()
    }
    return {status: {"description": "well", **content}} | told


def _operation(summary: str, answers: Json, *parameters: Json, body: Json | None = None) -> Json:
    told: Json = {"summary": summary, "responses": answers}
    if parameters:
        told["parameters"] = list(parameters)
    if body is not None:
        told["requestBody"] = {"required": True, "content": body}
    return told


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _in_query(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _count(name: str, default: int, most: int) -> Json:
    return _in_query(name, {"type": "integer", "minimum": 1, "maximum": most, "default": default})


_ID = _in_path("id", {"type": "string"})
_RECIPE = _in_path("name", NAME)
_OUTCOMES = _in_query("outcome", {"type": "array", "items": OUTCOME})
_BINARY: Json = {"type": "string", "contentMediaType": "application/octet-stream"}
_IMAGE: Json = {
    **{kind: {"schema": {}} for kind in ("image/jpeg", "image/png", "image/bmp", "image/tiff", "image/webp")},
    "multipart/form-data": {"schema": _object("image", image=_BINARY)},
}


_DOWNLOAD = (_OUTCOMES, _count("limit", 10_000, 1_000_000))
# The line as it runs.
_LINE: Json = {
    "/api/status": {"get": _operation("What runs and how it is", _answers(_ref("Status")))},
    "/api/events": {
        "get": _operation(
            "Server-sent events: `verdicts` as they come, `status` once a second",
            _answers(TEXT, kind="text/event-stream"),
        )
    },
    "/api/live.jpg": {
        "get": _operation(
            "The newest picture; 204 before the first one",
            _answers(_BINARY, kind="image/jpeg") | {"204": {"description": "no picture yet"}},
            _in_query("heat", {"type": "string", "enum": ["0", "1"], "default": "1"}),
        )
    },
    "/api/score": {
        "post": _operation(
            "The verdict on an image that is no frame of the line: not counted, not in the journal",
            _answers(_ref("Scored"), 408, 413, 415, 422, 503),
            body=_IMAGE,
        )
    },
    "/api/trigger": {
        "post": _operation(
            "Judge the frame of this moment; not taken: it came too soon after another",
            _answers(_object("taken", taken=TRUTH), 409, 413),
            body={"application/json": {"schema": _ref("Trigger")}},
        )
    },
    "/metrics": {"get": _operation("Metrics for Prometheus", _answers(TEXT, kind="text/plain"))},
}
# What it said.
_JOURNAL: Json = {
    "/api/verdicts": {
        "get": _operation(
            "The journal, newest first; `before` of the answer asks for the next page",
            _answers(_ref("Page")),
            _count("before", 2**62, 2**62),
            _count("limit", 50, 500),
            _OUTCOMES,
        )
    },
    "/api/verdicts.csv": {
        "get": _operation("Verdicts as a table", _answers(TEXT, kind="text/csv"), *_DOWNLOAD),
    },
    "/api/verdicts.zip": {
        "get": _operation(
            "Pictures, maps and a table of verdicts", _answers(_BINARY, kind="application/zip"), *_DOWNLOAD
        ),
    },
    "/api/verdicts/{id}": {"get": _operation("One verdict", _answers(_ref("Verdict"), 404), _ID)},
    "/api/verdicts/{id}/{kind}.jpg": {
        "get": _operation(
            "The thumbnail or the heat map of what was not accepted",
            _answers(_BINARY, 404, kind="image/jpeg"),
            _ID,
            _in_path("kind", {"type": "string", "enum": ["picture", "map"]}),
        )
    },
}
# What it judges by.
_RECIPES: Json = {
    "/api/recipes": {"get": _operation("Recipes of the bundle", _answers(_ref("Recipes")))},
    "/api/recipes/{name}/run": {
        "post": _operation(
            "Judge with this recipe from the next frame on, and after a restart",
            _answers(_ref("Running"), 404, 409),
            _RECIPE,
        )
    },
    "/api/recipes/{name}/history": {
        "get": _operation("Every edit of a recipe, oldest first", _answers(_ref("Edits"), 404), _RECIPE)
    },
    "/api/recipes/{name}/undo": {
        "post": _operation("Take the last edit back", _answers(_ref("Edit"), 404, 409), _RECIPE)
    },
    "/api/verdicts/{id}/fine": {
        "post": _operation(
            "This part was fine: its frame enters the recipe that judged it",
            _answers(_ref("Edit"), 404, 409, 413),
            _ID,
            body={"application/json": {"schema": _ref("Remark")}},
        )
    },
}
# A new recipe from the next frames.
_TEACH: Json = {
    "/api/teach": {
        "get": _operation("How the teach goes", _answers(_ref("Teach"))),
        "post": _operation(
            "Take the next frames as good parts, fit a recipe on them and switch to it",
            _answers(_ref("Teach"), 413, status="202"),
            body={"application/json": {"schema": _ref("Lesson")}},
        ),
        "delete": _operation("Cancel the teach; its frames stay", _answers(_ref("Teach"))),
    },
}
PATHS = _LINE | _JOURNAL | _RECIPES | _TEACH
