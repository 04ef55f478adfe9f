"""What may be posted to: a table of every spelling of what may not."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.errors import AppError, InvalidInput, LimitExceeded
from app.settings import Settings
from app.webhooks.addresses import AddressRefused, Guard, check_url, literal, refusal

REFUSED = {
    "unspecified": ["0.0.0.0", "0.1.2.3", "::"],
    "loopback": [
        "127.0.0.1",
        "127.255.255.254",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:0:127.0.0.1",
        "64:ff9b::7f00:1",
    ],
    "private": [
        "10.0.0.1",
        "10.255.255.255",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "::ffff:10.1.2.3",
    ],
    "private (unique local)": ["fc00::1", "fd12:3456::1", "fdff:ffff::1"],
    "private (site-local)": ["fec0::1", "feff::1"],
    "private (NAT64)": ["64:ff9b:1::1", "64:ff9b:1:ffff::808:808"],
    "link-local": ["169.254.0.1", "169.254.255.255", "fe80::1", "febf::1", "64:ff9b::a9fe:1"],
    "a cloud's metadata service": [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd20:ce::254",
    ],
    "shared by customers of a provider": ["100.64.0.1", "100.100.100.200", "100.127.255.255"],
    "multicast": ["224.0.0.1", "239.255.255.250", "ff02::1", "ff0e::1"],
    "broadcast": ["255.255.255.255"],
    "reserved": ["240.0.0.1", "254.1.2.3", "::127.0.0.1", "::8.8.8.8", "4000::1", "fe00::1", "1::1"],
    "reserved for protocols": ["192.0.0.1", "192.0.0.192", "2001:10::1", "2001:2::1", "2001:20::1"],
    "reserved for documentation": ["192.0.2.1", "198.51.100.1", "203.0.113.1", "2001:db8::1", "3fff::1"],
    "reserved for benchmarks": ["198.18.0.1", "198.19.255.255"],
    "reserved to discard": ["100::1"],
    "reserved for segment routing": ["5f00::1"],
    "a 6to4 relay": ["192.88.99.1"],
    "a tunnel (6to4)": ["2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:808:808::1"],
    "a tunnel (Teredo)": ["2001::1", "2001:0:4136:e378:8000:63bf:3fff:fdd2"],
}
ALLOWED = [
    "1.1.1.1",
    "8.8.8.8",
    "100.63.255.255",
    "100.128.0.0",
    "172.15.255.255",
    "172.32.0.0",
    "192.167.255.255",
    "223.255.255.255",
    "2001:4860:4860::8888",
    "2606:4700::1111",
    "2a00::1",
    "::ffff:8.8.8.8",
    "64:ff9b::808:808",
]
SPELLINGS_OF_LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "2130706433",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7F.1",
    "017700000001",
    "0177.0.0.1",
    "0177.0x0.1",
    "127.0.0.0x1",
    "①②⑦.⓪.⓪.①",
    "127。0。0。1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::0001]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::FFFF:7F00:0001]",
    "[64:ff9b::7f00:1]",
    "[::127.0.0.1]",
    "localhost",
    "LOCALHOST.",
    "anything.localhost",
]
SETTINGS = Settings()


@pytest.mark.parametrize(
    ("kind", "address"), [(kind, each) for kind, all_ in REFUSED.items() for each in all_]
)
def test_addresses_that_are_refused(kind: str, address: str) -> None:
    assert refusal(ip_address(address), ()) == kind


@pytest.mark.parametrize("address", ALLOWED)
def test_addresses_of_the_internet_are_allowed(address: str) -> None:
    assert refusal(ip_address(address), ()) is None


@given(st.ip_addresses(v=4))
def test_of_ipv4_nothing_is_allowed_that_python_finds_special(address: IPv4Address) -> None:
    if not address.is_global or address.is_multicast or address.is_reserved:
        assert refusal(address, ()) is not None


@given(st.ip_addresses(v=6))
def test_of_ipv6_nothing_is_allowed_that_python_finds_special(address: IPv6Address) -> None:
    if not address.is_global or address.is_multicast:
        assert refusal(address, ()) is not None


@given(st.ip_addresses(v=4))
def test_every_ipv6_form_of_an_address_is_judged_as_the_address_is(address: IPv4Address) -> None:
    for prefix in ("::ffff:0:0", "::ffff:0:0:0", "64:ff9b::"):
        form = IPv6Address(int(IPv6Address(prefix)) | int(address))
        assert refusal(form, ()) == refusal(address, ())


def test_a_tunnel_within_a_network_of_the_internet_is_judged_by_its_end() -> None:
    assert refusal(ip_address("2a00::5efe:10.0.0.1"), ()) == "private"
    assert refusal(ip_address("2a00::200:5efe:127.0.0.1"), ()) == "loopback"
    assert refusal(ip_address("2a00::5efe:8.8.8.8"), ()) is None


def test_an_allowed_network_is_allowed_in_every_spelling_and_nothing_beside_it() -> None:
    allowed = Settings(webhook_allowed_networks="10.1.0.0/16, fd00::/8, 127.0.0.1").webhook_allowed_networks

    for address in ("10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "127.0.0.1"):
        assert refusal(ip_address(address), allowed) is None
    for address in ("10.2.0.1", "::ffff:10.2.0.1", "fc00::1", "127.0.0.2", "::1"):
        assert refusal(ip_address(address), allowed) is not None


@pytest.mark.parametrize("host", SPELLINGS_OF_LOOPBACK)
def test_every_spelling_of_loopback_is_refused_early(host: str) -> None:
    with pytest.raises(InvalidInput, match=r"address that is (loopback|reserved)"):
        check_url(f"https://{host}/hooks", SETTINGS)


@pytest.mark.parametrize("host", SPELLINGS_OF_LOOPBACK[:14])
def test_every_spelling_is_allowed_where_the_network_is(host: str) -> None:
    url = f"https://{host}/hooks"
    assert check_url(url, Settings(webhook_allowed_networks="127.0.0.0/8")) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://example.com/", "https"),
        ("ftp://example.com/", "https"),
        ("file:///etc/passwd", "https"),
        ("javascript:alert(1)", "https"),
        ("example.com", "https"),
        ("//example.com/", "https"),
        ("https://", "host"),
        ("https:///hooks", "host"),
        ("https://:443/", "URL"),
        ("https://example.com:0/", "port"),
        ("https://example.com:65536/", "URL"),
        ("https://example.com:x/", "URL"),
        ("https://user@example.com/", "user"),
        ("https://user:password@example.com/", "user"),
        ("https://:password@example.com/", "user"),
        ("https://@example.com/", "user"),
        ("https://:@example.com/", "user"),
        ("https://[v1.x]/", "IPv6"),
        ("https://[1.1.1.1]/", "IPv6|URL"),
        ("https://256.256.256.256/", "host"),
        ("https://4294967296/", "host"),
        ("https://example.com.1/", "host"),
        ("https://1.1.1.1.1/", "host"),
        ("https://0x1ffffffff/", "host"),
        ("https://example.com/#there", "fragment"),
        ("https://example.com/#", "fragment"),
        ("https://exa mple.com/", "white space"),
        ("https://example.com/\n", "white space"),
        ("https://exa\tmple.com/", "white space"),
        ("https://example.com\\@127.0.0.1/", "backslashes"),
        ("https://[::1/", "URL"),
        ("https://[fe80::1%25eth0]/", "link-local"),
        ("https://%31%32%37.0.0.1/", "host"),
        ("https://a..b/", "host"),
        (f"https://{'a' * 64}.example/", "host"),
        ("", "empty"),
        (7, "string"),
        (None, "string"),
    ],
)
def test_urls_that_are_refused(url: object, why: str) -> None:
    with pytest.raises(AppError, match=why):
        check_url(url, SETTINGS)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hooks?token=a%20b&x=1",
        "https://example.com/@you/[x]?to=a@b.example",
        "https://example.com?to=a@b.example",
        "https://1-2.0xample.example/",
        "https://example.com:8443/",
        "https://bücher.example/",
        "https://sub.example.com./hooks",
        "https://1.1.1.1/",
        "https://[2606:4700::1111]:443/",
    ],
)
def test_urls_are_kept_as_they_were_given(url: str) -> None:
    assert check_url(url, SETTINGS) == url


def test_http_has_to_be_allowed() -> None:
    with pytest.raises(InvalidInput, match="CARILLON_WEBHOOK_ALLOW_HTTP"):
        check_url("http://example.com/", SETTINGS)
    assert check_url("http://example.com/", Settings(webhook_allow_http=True)) == "http://example.com/"


def test_a_url_has_at_most_2048_characters() -> None:
    url = "https://example.com/" + "a" * 2_028
    assert check_url(url, SETTINGS) == url
    with pytest.raises(LimitExceeded):
        check_url(url + "a", SETTINGS)


@given(st.text(max_size=60))
def test_whatever_is_given_it_is_a_url_or_an_expected_failure(given: str) -> None:
    for url in (given, f"https://{given}", f"https://example.com/{given}"):
        try:
            assert check_url(url, SETTINGS) == url
        except AppError:
            continue


@given(st.ip_addresses(v=4))
def test_literals_are_read_as_the_system_reads_them(address: IPv4Address) -> None:
    number = int(address)
    for spelling in (
        str(address),
        str(number),
        hex(number),
        f"0{number:o}",
        f"0x{number >> 24:x}.{number & 0xFFFFFF}",
    ):
        assert literal(spelling) == address
        assert socket.inet_ntoa(socket.inet_aton(spelling)) == str(address)


def test_a_socket_is_opened_to_allowed_addresses_only() -> None:
    guard = Guard([ip_network("127.0.0.0/8")])
    guard.open((socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 80))).close()
    for family, target in (
        (socket.AF_INET, ("10.0.0.1", 80)),
        (socket.AF_INET6, ("::1", 80, 0, 0)),
        (socket.AF_INET6, ("fe80::1%eth0", 80, 0, 2)),
        (socket.AF_INET, ("not-an-address", 80)),
        (socket.AF_UNIX, ("/run/some.sock",)),
    ):
        with pytest.raises(AddressRefused, match="CARILLON_WEBHOOK_ALLOWED_NETWORKS"):
            guard.open((family, socket.SOCK_STREAM, 0, "", target))


@pytest.mark.parametrize("value", ["10.0.0.1/8", "everything", "10.0.0.0/33", "1.2.3"])
def test_a_setting_that_is_no_network_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="comma-separated list of networks"):
        Settings(webhook_allowed_networks=value)
