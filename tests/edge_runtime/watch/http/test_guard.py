"""Who gets in: tokens, cookies, other web pages, other names."""

from __future__ import annotations

import http.client
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from shutil import which
from typing import Any

import pytest

pytest.importorskip("starlette", reason="the extra `watch` is not installed")

from site_of_tests import TOKEN

from orinspect_edge_runtime.errors import ConfigError, InputError
from orinspect_edge_runtime.watch.config import HttpConfig
from orinspect_edge_runtime.watch.http.guard import HEADERS
from orinspect_edge_runtime.watch.http.session import COOKIE, LIFETIME_S, Door

Site = Any
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def locked(open_site: Callable[..., Site]) -> Site:
    return open_site(token=TOKEN, names=["panel.factory"])


def test_beyond_loopback_nothing_starts_without_a_token() -> None:
    for host in ("0.0.0.0", "::", "192.168.1.5", "panel"):
        with pytest.raises(ConfigError, match="set a token"):
            HttpConfig(host=host)
        assert HttpConfig(host=host, token=TOKEN).host == host
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        assert HttpConfig(host=host).token == ""
    for token in ("short", "with blanks in it 123", "ümlaut-0123456789-0123"):
        with pytest.raises(ConfigError, match="token must be"):
            HttpConfig(token=token)
    with pytest.raises(ConfigError, match="belong together"):
        HttpConfig(certificate="a.pem")
    assert TOKEN not in repr(HttpConfig(token=TOKEN))


def test_every_address_asks_for_the_token(locked: Site) -> None:
    for path in ("/api/status", "/api/events", "/api/live.jpg", "/metrics", "/openapi.json", "/api/verdicts.zip"):
        answer = locked.ask("GET", path)
        assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
    for method, path in (("POST", "/api/score"), ("DELETE", "/api/teach"), ("POST", "/api/recipes/other/run")):
        assert locked.ask(method, path, b"").status == 401
    assert locked.ask("GET", "/").headers["location"] == "/login"
    assert locked.ask("GET", "/login").status == locked.ask("GET", "/dashboard.css").status == 200
    for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer ÿ"):
        assert locked.ask("GET", "/api/status", headers={"Authorization": wrong}).status == 401
    assert locked.ask("GET", "/api/status", headers=BEARER).status == 200


def test_the_form_gives_a_cookie(locked: Site) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    wrong = locked.ask("POST", "/login", b"token=wrong", form)
    assert wrong.status == 401 and b"That is not the token" in wrong.body
    answer = locked.ask("POST", "/login", f"token={TOKEN}".encode(), form)
    cookie = answer.headers["set-cookie"]
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and TOKEN not in cookie
    shown = {"Cookie": cookie.partition(";")[0]}
    assert locked.ask("GET", "/api/status", headers=shown).status == 200
    assert locked.ask("GET", "/", headers=shown).status == 200
    assert locked.ask("GET", "/api/status", headers=shown | {"Authorization": "Bearer wrong"}).status == 401
    assert locked.ask("GET", "/api/status", headers={"Cookie": shown["Cookie"] + "0"}).status == 401


def test_a_cookie_ends_and_dies_with_its_token() -> None:
    door = Door(TOKEN)
    cookie = door.cookie(now=0)
    assert door.admits(None, cookie, now=LIFETIME_S - 1)
    assert not door.admits(None, cookie, now=LIFETIME_S + 1)
    assert not Door(TOKEN + "x").admits(None, cookie, now=1)
    later = cookie.replace(str(LIFETIME_S), str(LIFETIME_S * 9))
    assert not door.admits(None, later, now=1)
    for odd in ("", ".", "..", "1.", "٣.x", "9" * 5000 + ".x", "\udcff.\ud800"):
        assert not door.admits(None, odd, now=0)
    assert COOKIE in "orinspect"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Origin": "http://[x"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_another_web_page_changes_nothing(site: Site, headers: dict[str, str]) -> None:
    answer = site.ask("POST", "/api/recipes/other/run", b"", headers)
    assert (answer.status, answer.json) == (403, {"error": "this request came from another web page"})
    assert site.get("/api/recipes")["running"] == "part"
    own = {"Origin": f"http://127.0.0.1:{site.port}", "Sec-Fetch-Site": "same-origin"}
    assert site.ask("DELETE", "/api/teach", headers=own).status == 200


def test_only_our_own_names_are_answered(locked: Site) -> None:
    for host in (
        "evil.example",
        f"evil.example:{locked.port}",
        "",
        "panel.factory.evil.example",
        "[",
        "localhost@evil.example",
    ):
        assert asked_as(locked, host) == 421, host
    for host in ("localhost", f"127.0.0.1:{locked.port}", "[::1]:80", "192.168.0.7", "PANEL.factory"):
        assert asked_as(locked, host) == 200, host


def asked_as(site: Site, host: str) -> int:
    client = http.client.HTTPConnection("127.0.0.1", site.port, timeout=120)
    client.putrequest("GET", "/api/status", skip_host=True)
    client.putheader("Host", host)
    client.putheader("Authorization", BEARER["Authorization"])
    client.endheaders()
    status = client.getresponse().status
    client.close()
    return status


def test_https(open_site: Callable[..., Site], tmp_path: Path) -> None:
    if which("openssl") is None:
        pytest.skip("no openssl here to make a certificate")
    pem, key = str(tmp_path / "c.pem"), str(tmp_path / "k.pem")
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    subprocess.run([*make, "-out", pem, "-keyout", key], check=True, capture_output=True)
    site = open_site(token=TOKEN, certificate=pem, key=key)
    trusted = ssl.create_default_context(cafile=pem)
    client = http.client.HTTPSConnection("localhost", site.port, timeout=120, context=trusted)
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    client.request("POST", "/login", f"token={TOKEN}", form)
    assert "Secure" in client.getresponse().headers["set-cookie"]
    client.close()


@pytest.mark.parametrize("name", ["none.pem", "absent.pem"])
def test_a_certificate_that_is_none_is_said_at_the_start(
    open_site: Callable[..., Site], tmp_path: Path, name: str
) -> None:
    (tmp_path / "none.pem").write_text("none")
    with pytest.raises(InputError, match=rf"certificate .*{name} and key .* cannot be used"):
        open_site(token=TOKEN, certificate=str(tmp_path / name), key=str(tmp_path / "none.pem"))


def test_every_answer_has_the_headers(site: Site) -> None:
    for path in ("/", "/api/status", "/nothing", "/api/live.jpg"):
        told = site.ask("GET", path).headers
        assert {name: told[name] for name in HEADERS} == HEADERS
        assert "server" not in told
    assert "unsafe" not in HEADERS["content-security-policy"]
