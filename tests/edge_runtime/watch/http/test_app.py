"""Every address over a real connection."""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("starlette", reason="the extra `watch` is not installed")

from orinspect_edge_runtime.detector import Detector
from orinspect_edge_runtime.overlay import draw_overlay
from orinspect_edge_runtime.watch.http import openapi
from orinspect_edge_runtime.watch.http.app import FILES, Pages, routes
from orinspect_edge_runtime.watch.http.live import lay_over
from orinspect_edge_runtime.watch.http.records import table

Site = Any


def test_status_tells_what_the_loop_told(site: Site) -> None:
    told = site.get("/api/status")
    assert (told["running"]["name"], told["source"]) == ("part", str(site.folder / "in"))
    assert told["outcomes"] == {"accept": 2, "reject": 1}
    assert told["frames"] == 3
    assert "trouble" in told["board"]


def test_the_journal_is_paged_and_filtered(site: Site) -> None:
    first = site.get("/api/verdicts?limit=2")
    rest = site.get(f"/api/verdicts?limit=2&before={first['before']}")
    assert [row["outcome"] for row in first["verdicts"] + rest["verdicts"]] == ["reject", "accept", "accept"]
    assert rest["before"] is None
    (reject,) = site.get("/api/verdicts?outcome=reject&outcome=failed")["verdicts"]
    assert site.get(f"/api/verdicts/{reject['id']}")["score"] == reject["score"] > reject["threshold"]
    for kind in ("picture", "map"):
        answer = site.ask("GET", f"/api/verdicts/{reject['id']}/{kind}.jpg")
        assert Image.open(io.BytesIO(answer.body)).format == "JPEG"
    assert site.ask("GET", f"/api/verdicts/{rest['verdicts'][0]['id']}/picture.jpg").status == 404


def test_downloads(site: Site) -> None:
    rows = list(csv.DictReader(io.StringIO(site.ask("GET", "/api/verdicts.csv").body.decode())))
    assert [row["outcome"] for row in rows] == ["reject", "accept", "accept"]
    content = site.ask("GET", "/api/verdicts.zip?outcome=reject&limit=1").body
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == [
            f"reject/{rows[0]['id']}-map.jpg",
            f"reject/{rows[0]['id']}-picture.jpg",
            "verdicts.csv",
        ]


def test_a_spreadsheet_runs_nothing() -> None:
    row = dict.fromkeys(("id", "judged_at", "outcome", "score", "threshold", "recipe", "index", "latency_ms", "error"))
    assert b"'=cmd" in table([row | {"source": "=cmd|' /C calc'!A0"}])


def test_the_live_picture_carries_the_heat_map(site: Site) -> None:
    hot, plain = (site.ask("GET", f"/api/live.jpg?heat={heat}") for heat in (1, 0))
    assert hot.headers["x-frame-number"] == plain.headers["x-frame-number"]
    pixels = [np.asarray(Image.open(io.BytesIO(one.body))).astype(int) for one in (hot, plain)]
    assert np.abs(pixels[0] - pixels[1])[14:18, 16:20].mean() > 12, "over the blot"


def test_the_live_heat_map_is_the_one_of_overlays() -> None:
    rows, columns = np.mgrid[:192, :192]
    hot = (9 * np.exp(-((rows - 90) ** 2 + (columns - 60) ** 2) / 500)).astype(np.float32)
    pixels = np.full((240, 320, 3), 120, np.uint8)
    image = Image.fromarray(pixels)
    lay_over(image, hot, 3.0)
    wanted = draw_overlay(pixels, hot, 3.0).astype(int)
    assert np.abs(np.asarray(image) - wanted).mean() < 1
    assert np.abs(pixels - wanted).mean() > 3


def test_a_posted_image_is_judged_as_the_line_would(site: Site) -> None:
    before = site.get("/api/status")["frames"]
    for name in ("test/blot/01.png", "test/good/02.png"):
        file = site.pictures / name
        with Detector.load(site.folder / "bundle", "part") as detector:
            wanted = detector(file)
        raw = site.ask("POST", "/api/score", file.read_bytes(), {"Content-Type": "image/png"}).json
        form = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n%s\r\n--x--\r\n'
        parts = site.ask(
            "POST", "/api/score", form % file.read_bytes(), {"Content-Type": "multipart/form-data; boundary=x"}
        ).json
        assert raw["score"] == parts["score"] == pytest.approx(wanted.score, rel=1e-5)
        assert raw["outcome"] == ("reject" if wanted.is_anomalous else "accept")
        assert (raw["width"], raw["height"]) == (36, 40)
    assert site.get("/api/status")["frames"] == before


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "words"),
    [
        ("POST", "/api/score", b"no image", "image/png", 422, "not an image"),
        ("POST", "/api/score", b"", "image/png", 422, "not an image"),
        ("POST", "/api/score", b"{}", "application/json", 415, "send an image file"),
        ("POST", "/api/score", b"--x--", "multipart/form-data; boundary=x", 400, "part `image`"),
        ("GET", "/api/verdicts?limit=0", None, "", 400, "limit is '0': it must be a whole number from 1 to 500"),
        ("GET", "/api/verdicts?before=9e9", None, "", 400, "before is '9e9'"),
        ("GET", "/api/verdicts?outcome=bad", None, "", 400, "use one of accept, review, reject, failed, alarm, clear"),
        ("GET", "/api/verdicts/none", None, "", 404, "not in the journal"),
        ("GET", "/api/status/", None, "", 404, "nothing at this address"),
        ("GET", "/api/../../etc/passwd", None, "", 404, "nothing at this address"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", None, "", 404, "nothing at this address"),
        ("PUT", "/api/status", b"", "", 405, "does not take this method"),
        ("POST", "/api/recipes/none/run", b"", "", 404, "has no recipe 'none': there are other, part"),
        ("POST", "/api/recipes/none/undo", b"", "", 404, "has no recipe 'none'"),
        ("GET", "/api/recipes/..%2f/history", None, "", 404, "nothing at this address"),
        ("POST", "/api/trigger", b"{}", "application/json", 409, "no [trigger] is configured"),
        ("POST", "/api/teach", b"[", "application/json", 400, "not JSON"),
        ("POST", "/api/teach", b"[" * 60_000, "application/json", 400, "not JSON"),
        ("POST", "/api/teach", b"[]", "application/json", 400, "must be a JSON object"),
        ("POST", "/api/teach", b'{"frames": 9}', "application/json", 400, "name is missing"),
        ("POST", "/api/teach", b'{"name": "a/b"}', "application/json", 400, "recipe name 'a/b'"),
        ("POST", "/api/teach", b'{"name": "x", "frames": true}', "application/json", 400, "must be of type int"),
        ("POST", "/api/teach", b'{"name": "x", "every_s": NaN}', "application/json", 400, "the pause between frames"),
        (
            "POST",
            "/api/teach",
            b'{"name": "x", "frame": 9}',
            "application/json",
            400,
            "'frame': did you mean 'frames'?",
        ),
        ("POST", "/api/teach", b'{"name": "part"}', "application/json", 400, "there is a recipe 'part' already"),
    ],
)
def test_an_error_is_one_sentence_of_json(
    site: Site, method: str, path: str, body: bytes | None, kind: str, status: int, words: str
) -> None:
    answer = site.ask(method, path, body, {"Content-Type": kind} if kind else {})
    assert (answer.status, list(answer.json)) == (status, ["error"])
    assert words in answer.json["error"]
    assert "Traceback" not in answer.json["error"]


def test_bodies_have_a_limit(open_site: Callable[..., Site]) -> None:
    site = open_site(upload_mib=1)
    large = b"\x89PNG" + bytes(2**20)
    assert site.ask("POST", "/api/score", large, {"Content-Type": "image/png"}).status == 413
    untold = iter([large[: 2**19], large[: 2**19], large[: 2**19]])
    assert "1 MiB" in site.ask("POST", "/api/score", untold, {"Content-Type": "image/png"}).json["error"]
    huge = Image.new("1", (9000, 9000))
    file = io.BytesIO()
    huge.save(file, "PNG")
    assert (
        "9000x9000 pixels"
        in site.ask("POST", "/api/score", file.getvalue(), {"Content-Type": "image/png"}).json["error"]
    )


def test_an_error_of_ours_shows_no_stack(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(site.service.records, "page", fails)
    answer = site.ask("GET", "/api/verdicts")
    assert (answer.status, answer.json) == (500, {"error": "an error in orinspect: its log says more"})


def test_a_journal_that_is_gone_is_said(open_site: Callable[..., Site]) -> None:
    site = open_site()
    for file in site.folder.glob("journal.sqlite*"):
        file.unlink()
    assert "the journal cannot be read now" in site.ask("GET", "/api/verdicts").json["error"]


def test_openapi_is_valid_and_complete(site: Site) -> None:
    validator = pytest.importorskip("openapi_spec_validator", reason="the extra `dev` is not installed")
    served = site.get("/openapi.json")
    validator.validate(served)
    told = {(method.upper(), path) for path, methods in served["paths"].items() for method in methods}
    have = {(m, r.path) for r in routes(Pages(site.service)) for m in r.methods or () if m != "HEAD"}
    pages = {("GET", path) for path in FILES} | {
        ("GET", "/login"),
        ("POST", "/login"),
        ("POST", "/logout"),
        ("GET", "/openapi.json"),
    }
    assert told == have - pages


def test_answers_have_the_shape_that_openapi_tells(site: Site) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="the extra `dev` is not installed")
    components = {"components": openapi.document()["components"]}
    for path, name in (
        ("/api/status", "Status"),
        ("/api/verdicts", "Page"),
        ("/api/recipes", "Recipes"),
        ("/api/teach", "Teach"),
    ):
        jsonschema.validate(site.get(path), {"$ref": f"#/components/schemas/{name}"} | components)


def test_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    for path, (_, kind) in FILES.items():
        answer = site.ask("GET", path)
        assert answer.headers["content-type"].startswith(kind)
        text = answer.body.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert "http:" not in text and "https:" not in text
        assert " style=" not in text and " onclick=" not in text
