"""ARP and ND claims: what is asked, what contradicts, and what two-way lies look like."""

from __future__ import annotations

from agent.features.claims import ANNOUNCEMENT, CONTRADICTION, TWO_WAY, UNASKED, ClaimBook

S = 1_000_000_000
A, B, ROUTER = 0x0A000001, 0x0A000002, 0x0A0000FE
MAC_A, MAC_B, MAC_R, EVIL = 0xA, 0xB, 0xF, 0x666


def test_an_answer_within_five_seconds_is_asked_for():
    book = ClaimBook(100)
    assert book.ask(0, A, MAC_A, B) == 0
    assert book.claim(1 * S, B, MAC_B, A) == 0
    assert book.claim(5 * S, B, MAC_B, A) == 0
    assert book.claim(5 * S + 1, B, MAC_B, A) == UNASKED


def test_an_answer_to_a_probe_is_asked_for():
    book = ClaimBook(100)
    assert book.ask(0, 0, MAC_A, B) == 0
    assert book.claim(1, B, MAC_B, 0) == 0


def test_gratuitous_arp_is_an_announcement():
    book = ClaimBook(100)
    assert book.ask(0, A, MAC_A, A) == ANNOUNCEMENT
    assert book.claim(1, A, MAC_A, A) == ANNOUNCEMENT
    assert book.claim(2, A, MAC_A, 0) == ANNOUNCEMENT


def test_a_claim_beside_a_living_holder_contradicts_every_time():
    book = ClaimBook(100)
    for t in range(0, 300, 30):
        assert book.ask(t * S, ROUTER, MAC_R, A) == 0
        assert book.claim((t + 1) * S, ROUTER, EVIL, A) == UNASKED | CONTRADICTION


def test_unasked_claims_never_become_the_holder():
    book = ClaimBook(100)
    book.ask(0, ROUTER, MAC_R, A)
    for t in range(1, 400):
        assert book.claim(t * S, ROUTER, EVIL, A) & CONTRADICTION
    assert book.ask(400 * S, ROUTER, MAC_R, A) == 0, "the owner is still the owner"


def test_an_address_that_moved_stops_contradicting():
    book = ClaimBook(100)
    book.ask(0, A, MAC_A, B)
    assert book.ask(10 * S, A, MAC_B, A) == ANNOUNCEMENT | CONTRADICTION
    assert book.ask(61 * S, A, MAC_B, A) == ANNOUNCEMENT
    assert book.ask(62 * S, A, MAC_B, B) == 0


def test_one_mac_that_tells_both_ways():
    book = ClaimBook(100)
    assert book.claim(0, A, EVIL, B) == UNASKED
    assert book.claim(1, B, EVIL, A) == UNASKED | TWO_WAY
    assert book.claim(2, A, EVIL, B) == UNASKED | TWO_WAY
    assert book.claim(62 * S, B, EVIL, A) == UNASKED, "60 s later it is no longer two-way"


def test_two_macs_are_not_two_way():
    book = ClaimBook(100)
    book.claim(0, A, MAC_A, B)
    assert book.claim(1, B, MAC_B, A) == UNASKED


def test_tables_are_bounded_and_say_what_they_dropped():
    book = ClaimBook(10)
    for i in range(100):
        book.ask(i, 1000 + i, MAC_A, 5000 + i)
    assert book.n_evicted == 180
