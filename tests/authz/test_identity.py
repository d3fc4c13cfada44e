"""Whom a certificate stands for, and which certificates stand for nobody."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.name import _ASN1Type
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier
from hypothesis import given
from hypothesis import strategies as st

from jobworker.authz.identity import MAX_TENANTS, Identity, IdentityError, identity_from_der

# cryptography warns of names as long as some of these.
pytestmark = pytest.mark.filterwarnings("ignore:Attribute's length")

KEY = ec.generate_private_key(ec.SECP256R1())
CN = NameOID.COMMON_NAME
OU = NameOID.ORGANIZATIONAL_UNIT_NAME
CLIENT = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH])
EXPIRY = datetime(2040, 1, 2, 3, 4, 5, tzinfo=UTC)


def attribute(
    oid: ObjectIdentifier, value: str, kind: _ASN1Type = _ASN1Type.UTF8String
) -> x509.NameAttribute[str]:
    """A name as a careless CA might sign it: of any length and string type."""
    return x509.NameAttribute(oid, value, kind, _validate=False)


def named(cn: str, ous: Sequence[str] = ()) -> x509.Name:
    return x509.Name([*(attribute(OU, ou) for ou in ous), attribute(CN, cn)])


def certificate(
    subject: x509.Name,
    extensions: Sequence[x509.ExtensionType] = (CLIENT,),
    serial: int = 0xABC123,
) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(x509.Name([attribute(CN, "authority")]))
        .public_key(KEY.public_key())
        .serial_number(serial)
        .not_valid_before(EXPIRY - timedelta(days=1))
        .not_valid_after(EXPIRY)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(KEY, hashes.SHA256()).public_bytes(Encoding.DER)


def usage(*, signs: bool = False, digital_signature: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=not digital_signature,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def refusal(der: bytes) -> str:
    with pytest.raises(IdentityError) as caught:
        identity_from_der(der)
    reason = str(caught.value)
    # It goes to logs and terminals, whatever the certificate holds.
    assert reason.isascii()
    assert reason.isprintable()
    assert len(reason) < 300
    return reason


def test_a_certificate_names_a_user_and_tenants_in_order() -> None:
    identity = identity_from_der(certificate(named("alice", ["team-b", "team-a"])))
    assert identity == Identity("alice", ("team-b", "team-a"), "abc123", EXPIRY)
    assert identity.not_after.tzinfo is UTC
    assert str(identity) == "cn=alice ou=team-b,team-a"


def test_a_user_needs_no_tenant() -> None:
    identity = identity_from_der(certificate(named("alice")))
    assert identity.tenants == ()
    assert str(identity) == "cn=alice"


@pytest.mark.parametrize("name", ["a", "A1", "alice@example.org", "a.b_c-d", "0", "x" * 64])
def test_plain_names_are_accepted(name: str) -> None:
    identity = identity_from_der(certificate(named(name, [name])))
    assert (identity.common_name, identity.tenants) == (name, (name,))


def test_other_attributes_of_the_subject_mean_nothing() -> None:
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "DE"),
            attribute(NameOID.ORGANIZATION_NAME, "role:admin, CN=root"),
            attribute(CN, "alice"),
            attribute(NameOID.USER_ID, "root"),
        ]
    )
    assert identity_from_der(certificate(subject)).common_name == "alice"


HOSTILE = {
    "empty": "",
    "space": " ",
    "comma": "alice,CN=root",
    "equals": "alice=root",
    "slash": "team-a/alice",
    "quote": 'ali"ce',
    "apostrophe": "ali'ce",
    "newline": "alice\nroot",
    "trailing newline": "alice\n",
    "carriage return": "alice\r",
    "NUL": "alice\0root",
    "leading NUL": "\0alice",
    "escape": "ali\x1b[2Jce",
    "star": "*",
    "glob": "al*",
    "question mark": "alic?",
    "class": "[a-z]lice",
    "placeholder cn": "{cn}",
    "placeholder ou": "{ou}",
    "dots": "..",
    "dots inside": "a..b",
    "path": "../../etc",
    "hidden": ".alice",
    "option": "-alice",
    "subject": "role:admin",
    "user subject": "cn:root",
    "matcher": "r.sub == p.sub",
    "matcher or": "alice||true",
    "eval": "eval(p.sub_rule)",
    "casbin rule": "p, cn:alice, *, */*, allow",
    "comment": "alice#root",
    "percent": "%2e%2e",
    "cyrillic a": "\u0430lice",
    "fullwidth": "\uff41lice",
    "combining": "alice\u0301",
    "right to left": "\u202eecila",
    "zero width": "ali\u200bce",
    "kelvin sign": "\u212aarl",
    "arabic digit": "alice\u0661",
    "65 characters": "x" * 65,
    "64 KiB": "x" * 65_536,
}


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_name_is_nobodys(name: str) -> None:
    assert "the certificate's CN" in refusal(certificate(named(name)))


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_tenant_is_no_tenant(name: str) -> None:
    assert "the certificate's OU" in refusal(certificate(named("alice", ["team-a", name])))


@given(st.text(max_size=80))
def test_only_names_of_plain_characters_are_ever_accepted(name: str) -> None:
    try:
        identity = identity_from_der(certificate(named(name, [name])))
    except IdentityError:
        assert not re.fullmatch(r"[A-Za-z0-9]{1,64}", name)
    else:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", identity.common_name, re.ASCII)
        assert identity.common_name == identity.tenants[0] == name
        assert ".." not in name


def test_there_must_be_exactly_one_cn() -> None:
    assert "0 CNs" in refusal(certificate(x509.Name([attribute(OU, "team-a")])))
    assert "0 CNs" in refusal(certificate(x509.Name([])))
    both = x509.Name([attribute(CN, "alice"), attribute(CN, "root")])
    assert "2 CNs" in refusal(certificate(both))
    same = x509.Name([attribute(CN, "alice"), attribute(CN, "alice")])
    assert "2 CNs" in refusal(certificate(same))


def test_a_tenant_must_not_be_named_twice() -> None:
    assert "twice" in refusal(certificate(named("alice", ["team-a", "team-b", "team-a"])))


def test_tenants_are_limited_in_number() -> None:
    tenants = [f"team-{number}" for number in range(MAX_TENANTS + 1)]
    assert len(identity_from_der(certificate(named("alice", tenants[1:]))).tenants) == MAX_TENANTS
    assert str(MAX_TENANTS) in refusal(certificate(named("alice", tenants)))


@pytest.mark.parametrize("second", [attribute(CN, "root"), attribute(OU, "team-a")])
def test_names_must_not_share_an_rdn(second: x509.NameAttribute[str]) -> None:
    shared = x509.RelativeDistinguishedName([attribute(CN, "alice"), second])
    assert "shares an RDN" in refusal(certificate(x509.Name([shared])))


@pytest.mark.parametrize(
    "kind",
    [_ASN1Type.T61String, _ASN1Type.IA5String, _ASN1Type.BMPString, _ASN1Type.UniversalString],
    ids=lambda kind: kind.name,
)
@pytest.mark.parametrize("oid", [CN, OU], ids=["CN", "OU"])
def test_names_must_be_plain_strings(kind: _ASN1Type, oid: ObjectIdentifier) -> None:
    other = {CN: attribute(OU, "team-a"), OU: attribute(CN, "alice")}[oid]
    assert "UTF8String" in refusal(certificate(x509.Name([attribute(oid, "abcd", kind), other])))


def test_a_printable_string_is_as_good_as_utf8() -> None:
    subject = x509.Name([attribute(CN, "alice", _ASN1Type.PrintableString)])
    assert identity_from_der(certificate(subject)).common_name == "alice"


def test_a_string_that_is_not_utf8_is_refused() -> None:
    der = certificate(named("alice-XX"))
    assert der.count(b"alice-XX") == 1
    assert "cannot be read" in refusal(der.replace(b"alice-XX", b"alice-\xff\xfe"))


@pytest.mark.parametrize(
    ("extensions", "reason"),
    [
        ((), "clientAuth"),
        ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),), "clientAuth"),
        ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE]),), "clientAuth"),
        ((CLIENT, x509.BasicConstraints(ca=True, path_length=None)), "is a CA's"),
        ((CLIENT, x509.BasicConstraints(ca=True, path_length=0), usage(signs=True)), "is a CA's"),
        ((CLIENT, usage(signs=True)), "digitalSignature"),
        ((CLIENT, usage(digital_signature=False)), "digitalSignature"),
    ],
    ids=["no usage", "server", "any", "CA", "signing CA", "signs", "no signature"],
)
def test_a_certificate_must_be_for_clients(
    extensions: Sequence[x509.ExtensionType], reason: str
) -> None:
    assert reason in refusal(certificate(named("alice"), extensions))


def test_a_client_certificate_may_say_that_it_is_no_ca() -> None:
    extensions = (CLIENT, x509.BasicConstraints(ca=False, path_length=None), usage())
    assert identity_from_der(certificate(named("alice"), extensions)).common_name == "alice"


@pytest.mark.parametrize("der", [b"", b"\x30\x00", b"alice", certificate(named("alice"))[:-1]])
def test_what_is_no_certificate_is_refused(der: bytes) -> None:
    assert "cannot be read" in refusal(der)


# Made once: a signature's length is a matter of chance.
SOUND = certificate(named("alice", ["team-a"]))


@given(st.data())
def test_a_damaged_certificate_gives_no_unusual_name(data: st.DataObject) -> None:
    der = bytearray(SOUND)
    at = data.draw(st.integers(0, len(der) - 1))
    der[at] ^= 1 << data.draw(st.integers(0, 7))
    try:
        identity = identity_from_der(bytes(der))
    except IdentityError:
        return
    # TLS has checked the signature; here it is enough that the strict form holds.
    assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", identity.common_name)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", ou) for ou in identity.tenants)
