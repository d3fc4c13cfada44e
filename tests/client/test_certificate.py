"""When a certificate begins and ends, beside what a library for certificates says."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st

from jobworker.client.certificate import validity_in, validity_of
from jobworker.client.errors import BadFile
from tests.support.pki import Authority

# 2049 and 2050 are written in two ways.
DATES = [
    (datetime(1951, 1, 1, tzinfo=UTC), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
    (datetime(2026, 2, 28, 1, 2, 3, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)),
    (datetime(2051, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)),
]


@pytest.mark.parametrize(("begin", "end"), DATES)
def test_it_is_what_the_library_says(tmp_path: Path, begin: datetime, end: datetime) -> None:
    issued = Authority(tmp_path).client(not_before=begin, not_after=end)
    found = validity_of(issued.certificate)
    assert (found.begin, found.end) == (begin, end)
    certificate = x509.load_pem_x509_certificate(issued.certificate.read_bytes())
    assert found.end == certificate.not_valid_after_utc


def test_of_a_chain_it_is_the_first(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.expired_client()
    chain = tmp_path / "chain.pem"
    chain.write_bytes(issued.certificate.read_bytes() + authority.certificate.read_bytes())
    assert validity_of(chain) == validity_of(issued.certificate)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds none"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is damaged"),
        (b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "is damaged"),
    ],
)
def test_what_is_no_certificate_is_told(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "certificate.pem"
    path.write_bytes(content)
    with pytest.raises(BadFile, match=f"{path} {said}"):
        validity_of(path)
    with pytest.raises(BadFile, match="No such file"):
        validity_of(tmp_path / "nonesuch")


@given(st.binary())
def test_whatever_it_is_given_it_fails_in_the_same_ways(data: bytes) -> None:
    with pytest.raises((IndexError, ValueError)):
        validity_in(data)
