"""What the shop decides without I/O."""

import pytest

from lostwax.shop.domain import tidy_email
from lostwax.shop.passwords import Passwords


@pytest.mark.parametrize(
    ("typed", "address"),
    [
        ("nora@example.org", "nora@example.org"),
        ("  n.o+ra@sub.example.org\n", "n.o+ra@sub.example.org"),
        ("нора@пример.рф", "нора@пример.рф"),
        ("nora@example", None),
        ("nora@@example.org", None),
        ("<script>@example.org", None),
        ('"a"@example.org', None),
        ("a b@example.org", None),
        ("@example.org", None),
        ("a@example..o", None),
        ("a@" + "b" * 250 + ".org", None),
        ("", None),
    ],
)
def test_what_an_address_can_be(typed: str, address: str | None) -> None:
    assert tidy_email(typed) == address


async def test_a_password_fits_itself_alone_and_is_salted() -> None:
    passwords = Passwords(cost=10)
    one, other = await passwords.hashed("correct horse"), await passwords.hashed("correct horse")
    assert one != other
    assert "correct" not in one
    assert await passwords.fits("correct horse", one)
    assert not await passwords.fits("correct horsE", one)
    assert not await passwords.fits("correct horse", None)
    dearer = Passwords(cost=11)
    assert await dearer.fits("correct horse", one), "what was stored at another cost still fits"
