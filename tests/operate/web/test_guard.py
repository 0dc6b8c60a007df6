"""Who may read the page, and who may change anything."""

import pytest

from pagetide.operate.web.guard import OWN_HEADER, may_change, may_have_looked, may_read

TOKEN = "a-token"
GOOD = {
    "host": "127.0.0.1:8080", "origin": "http://127.0.0.1:8080", "sec-fetch-site": "same-origin",
    "content-type": "application/json", "authorization": f"Bearer {TOKEN}",
}  # fmt: skip


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "[::1]:8080", "localhost", "localhost:8080", "192.0.2.7:80"])
def test_who_names_this_machine_by_an_address_may_read(host: str) -> None:
    """A browser that shows our page, or a person with curl."""
    assert may_read({"host": host})
    assert may_read({"host": host, "sec-fetch-site": "same-origin"})


@pytest.mark.parametrize("host", ["", "evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::1", "a b"])
def test_a_name_that_leads_here_is_not_ours(host: str) -> None:
    """So a site whose name leads to this address reads nothing."""
    assert not may_read({"host": host})


@pytest.mark.parametrize("site", ["cross-site", "same-site", "odd"])
def test_a_page_of_another_site_may_not_ask(site: str) -> None:
    """Not even from another port of this machine."""
    assert not may_read({"host": "127.0.0.1:8080", "sec-fetch-site": site})


def test_what_makes_work_is_asked_by_the_page_or_by_who_says_so() -> None:
    """A page of another site may send neither, also where a browser does not say whence a request comes."""
    host = {"host": "192.0.2.7:8080"}
    assert may_have_looked(host | {"sec-fetch-site": "same-origin"})
    assert may_have_looked(host | {OWN_HEADER: "page"})
    for other in ({}, {"sec-fetch-site": "none"}, {"sec-fetch-site": "cross-site", OWN_HEADER: "page"}):
        assert not may_have_looked(host | other)


def test_who_knows_the_token_and_comes_from_the_page_may_change() -> None:
    """And nobody may where there is no token."""
    assert may_change(GOOD, TOKEN)
    assert not may_change(GOOD, "")
    assert not may_change(GOOD | {"authorization": "Bearer "}, "")


@pytest.mark.parametrize(
    "other",
    [
        {"authorization": "Bearer another"},
        {"authorization": ""},
        {"authorization": "Bearer ä"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"host": "evil.example", "origin": "http://evil.example"},
        {"content-type": "text/plain"},
        {"sec-fetch-site": "cross-site"},
    ],
    ids=str,
)
def test_nobody_else_may_change(other: dict[str, str]) -> None:
    """Each of these alone is enough to be refused."""
    assert not may_change(GOOD | other, TOKEN)
