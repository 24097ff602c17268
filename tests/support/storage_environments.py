"""Settings of S3, and storage that does not do what tables need: each works by every client, or is told in a sentence.

A case takes an :class:`Environment` and raises where something is wrong.
"""

import datetime
import ipaddress
import json
import os
import ssl
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from deltalake import DeltaTable, write_deltalake

from catalog.delta import explained
from cluster.storage import Storage, StorageError
from tests.support.flat_s3 import BUCKET, Answer, Asked, FlatS3, flat_s3, refusal
from tests.support.s3_server import S3

KEYS = {"AWS_ACCESS_KEY_ID": "AKIDTEST", "AWS_SECRET_ACCESS_KEY": "not-to-be-seen-anywhere"}
_PROFILE_KEYS = "aws_access_key_id = AKIDPROFILE\naws_secret_access_key = not-to-be-seen-anywhere\n"
_REMOTE = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


@dataclass
class Environment:
    """A process whose variables say nothing of AWS yet."""

    variables: pytest.MonkeyPatch
    folder: Path
    real: S3
    servers: ExitStack

    def __post_init__(self) -> None:
        for name in [name for name in os.environ if name.startswith("AWS_") or name.upper() in _REMOTE]:
            self.variables.delenv(name)
        self.variables.setenv("SSL_CERT_FILE", "")  # set by the product; so it is put back afterwards
        self.variables.delenv("SSL_CERT_FILE")
        self.use(
            AWS_CONFIG_FILE=str(self.folder / "config"),
            AWS_SHARED_CREDENTIALS_FILE=str(self.folder / "credentials"),
            AWS_MAX_ATTEMPTS="2",
        )

    def use(self, **values: str) -> None:
        for name, value in values.items():
            self.variables.setenv(name, value)

    def profile(self, text: str, credentials: str = "") -> None:
        """A profile ``studio``, taken by AWS_PROFILE; an instance-metadata service that must not be asked is there."""
        (self.folder / "config").write_text(text)
        (self.folder / "credentials").write_text(credentials)
        watch = self.server()
        watch.fault = lambda asked: pytest.fail("the instance-metadata service was asked")
        self.use(
            AWS_PROFILE="studio",
            AWS_EC2_METADATA_SERVICE_ENDPOINT=watch.endpoint,
            AWS_METADATA_ENDPOINT=watch.endpoint,
        )
        self.servers.callback(lambda: self._unasked(watch))

    def _unasked(self, watch: FlatS3) -> None:
        assert watch.asked == [], "the instance-metadata service was asked"

    def server(self, tls: ssl.SSLContext | None = None) -> FlatS3:
        return self.servers.enter_context(flat_s3(tls))


def _ours(place: Storage) -> None:
    place.write_bytes("a.txt", b"ours")
    assert place.read_bytes("a.txt") == b"ours"


def _arrow(place: Storage) -> None:
    with place.filesystem.open_output_stream(f"{place.path}/b.txt") as file:
        file.write(b"arrow")
    with place.filesystem.open_input_file(f"{place.path}/b.txt") as file:
        assert file.read() == b"arrow"


def _delta(place: Storage) -> None:
    uri = place.delta_uri("table")
    with explained(place, "table", "write"):
        write_deltalake(uri, pa.table({"a": [1]}), mode="append", storage_options=place.delta_options())
        assert DeltaTable(uri, storage_options=place.delta_options()).count() >= 1


CLIENTS: dict[str, Callable[[Storage], None]] = {"ours": _ours, "arrow": _arrow, "delta": _delta}


def works(bucket: str = BUCKET) -> None:
    """By every client, and the probe passes."""
    place = Storage.open(f"s3://{bucket}/place")
    place.check_writable()
    for client in CLIENTS.values():
        client(place)


def refused(words: str, *clients: str, kind: type[StorageError] = StorageError, bucket: str = BUCKET) -> None:
    """By every client, or those named: an error that has place, operation and ``words``, and no secret."""
    place = Storage.open(f"s3://{bucket}/place")
    for name in clients or CLIENTS:
        with pytest.raises(kind, match=words) as caught:
            CLIENTS[name](place)
        said = str(caught.value)
        assert f"s3://{bucket}" in said, name
        assert "cannot" in said, name
        error: BaseException | None = caught.value
        while error is not None:
            assert KEYS["AWS_SECRET_ACCESS_KEY"] not in f"{error!r}", name
            error = error.__cause__


# Profiles


def keys_in_a_profile(env: Environment) -> None:
    real = {"aws_access_key_id": "test-access-key", "aws_secret_access_key": "test-secret-key-0123456789"}
    keys = "\n".join(f"{name} = {value}" for name, value in real.items())
    env.profile("[profile studio]\nregion = us-east-1\n", f"[studio]\n{keys}\n")
    env.use(AWS_ENDPOINT_URL=env.real.endpoint)
    works(env.real.bucket)


def _seen(server: FlatS3) -> tuple[set[str], set[str]]:
    """Access keys, and clients that presented them."""
    return {asked.access_key for asked in server.asked}, {asked.client for asked in server.asked}


def endpoint_in_a_profile(env: Environment) -> None:
    server = env.server()
    env.profile(f"[profile studio]\nregion = eu-north-1\n{_PROFILE_KEYS}endpoint_url = {server.endpoint}\n")
    works()
    assert _seen(server) == ({"AKIDPROFILE"}, {"boto3", "delta"})
    assert {asked.region for asked in server.asked} == {"eu-north-1"}


def endpoint_in_the_services_of_a_profile(env: Environment) -> None:
    server = env.server()
    services = f"[services mine]\ns3 =\n  endpoint_url = {server.endpoint}\n"
    env.profile(f"[profile studio]\nregion = eu-north-1\n{_PROFILE_KEYS}services = mine\n{services}")
    works()
    assert _seen(server) == ({"AKIDPROFILE"}, {"boto3", "delta"})


def _process(env: Environment, program: str) -> None:
    script = env.folder / "process.py"
    script.write_text(program)
    env.profile(f"[profile studio]\nregion = eu-north-1\ncredential_process = {sys.executable} {script}\n")


def keys_by_a_process(env: Environment) -> None:
    server = env.server()
    answer = {"Version": 1, "AccessKeyId": "AKIDPROCESS", "SecretAccessKey": "x", "SessionToken": "session"}
    _process(env, f"print('''{json.dumps(answer)}''')")
    env.use(AWS_ENDPOINT_URL=server.endpoint)
    works()
    assert _seen(server) == ({"AKIDPROCESS"}, {"boto3", "delta"})
    assert {asked.headers["x-amz-security-token"] for asked in server.asked} == {"session"}


def keys_that_are_renewed(env: Environment) -> None:
    """Valid for a minute: too short to begin anything with, so each use asks the process again."""
    server = env.server()
    count = env.folder / "count"
    count.write_text("0")
    _process(
        env,
        "import datetime, json, pathlib\n"
        f"count = pathlib.Path({str(count)!r}); n = int(count.read_text()) + 1; count.write_text(str(n))\n"
        "end = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)\n"
        "print(json.dumps({'Version': 1, 'AccessKeyId': f'AKID{n}', 'SecretAccessKey': 'x',"
        " 'SessionToken': 's', 'Expiration': end.isoformat()}))",
    )
    env.use(AWS_ENDPOINT_URL=server.endpoint)
    place = Storage.open(f"s3://{BUCKET}/place")
    first = place.delta_options()["AWS_ACCESS_KEY_ID"]
    _ours(place)
    assert place.delta_options()["AWS_ACCESS_KEY_ID"] != first
    assert len(_seen(server)[0]) > 1


def keys_in_a_file_that_is_renewed(env: Environment) -> None:
    server = env.server()
    env.profile("[profile studio]\nregion = eu-north-1\n", f"[studio]\n{_PROFILE_KEYS}")
    env.use(AWS_ENDPOINT_URL=server.endpoint)
    server.fault = lambda asked: refusal(400, "ExpiredToken") if asked.access_key == "AKIDPROFILE" else None
    refused("credentials have expired; renew them")
    (env.folder / "credentials").write_text(f"[studio]\n{_PROFILE_KEYS.replace('AKIDPROFILE', 'AKIDNEW')}")
    works()


def a_profile_that_is_not_there(env: Environment) -> None:
    env.profile("")
    env.use(AWS_PROFILE="stduio")
    refused(r"profile \(stduio\) could not be found; check AWS_PROFILE")


def a_process_that_fails(env: Environment) -> None:
    _process(env, "import sys; sys.exit('the vault is sealed')")
    env.use(AWS_ENDPOINT_URL=env.server().endpoint)
    refused("the vault is sealed; check its credential_process")


def single_sign_on_that_has_ended(env: Environment) -> None:
    env.profile(
        "[profile studio]\nregion = eu-north-1\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = r\n"
        "[sso-session s]\nsso_region = eu-north-1\nsso_start_url = https://sso.invalid/start\n"
    )
    env.use(AWS_ENDPOINT_URL=env.server().endpoint, HOME=str(env.folder))
    refused("run `aws sso login`")


def no_credentials(env: Environment) -> None:
    server = env.server()
    env.use(AWS_ENDPOINT_URL=server.endpoint, AWS_EC2_METADATA_DISABLED="true")
    refused("no credentials; set AWS_ACCESS_KEY_ID")
    assert server.asked == []


def a_password_in_the_endpoint(env: Environment) -> None:
    env.use(**KEYS, AWS_ENDPOINT_URL="http://me:not-to-be-seen-anywhere@127.0.0.1:9")
    with pytest.raises(StorageError, match="without user name or password") as caught:
        Storage.open(f"s3://{BUCKET}/place").check_writable()
    assert KEYS["AWS_SECRET_ACCESS_KEY"] not in str(caught.value)


# Proxies


def an_http_proxy(env: Environment) -> None:
    proxy = env.server()
    env.use(**KEYS, AWS_ENDPOINT_URL="http://s3.invalid", HTTP_PROXY=proxy.endpoint, NO_PROXY="127.0.0.1")
    works()
    assert {asked.host for asked in proxy.asked} == {"s3.invalid"}
    assert _seen(proxy)[1] == {"boto3", "delta"}


def a_proxy_for_all(env: Environment) -> None:
    proxy = env.server()
    env.use(**KEYS, AWS_ENDPOINT_URL="http://s3.invalid", ALL_PROXY=proxy.endpoint)
    works()
    assert _seen(proxy)[1] == {"boto3", "delta"}


def _past_a_dead_proxy(env: Environment, excluded: str) -> None:
    env.use(**KEYS, AWS_ENDPOINT_URL=env.server().endpoint, HTTP_PROXY="http://127.0.0.1:9", NO_PROXY=excluded)
    works()


def a_host_without_proxy(env: Environment) -> None:
    _past_a_dead_proxy(env, "localhost,127.0.0.1")


def a_network_without_proxy(env: Environment) -> None:
    _past_a_dead_proxy(env, "10.0.0.0/8, 127.0.0.0/8")


def a_dead_proxy(env: Environment) -> None:
    env.use(**KEYS, AWS_ENDPOINT_URL="http://s3.invalid", HTTP_PROXY="http://127.0.0.1:9")
    refused("the proxy does not answer; check HTTP_PROXY")


# Certificates


def _certified(env: Environment, *, itself: bool = False) -> tuple[FlatS3, str]:
    """A server with a certificate of an authority of its own, or that of the authority itself; the authority's file."""
    authority = _certificate("studio CA")
    shown = authority if itself else _certificate("127.0.0.1", authority)
    pem, chain = env.folder / "ca.pem", env.folder / "server.pem"
    pem.write_bytes(authority[0].public_bytes(Encoding.PEM))
    private = shown[1].private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    chain.write_bytes(shown[0].public_bytes(Encoding.PEM) + private)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return env.server(context), str(pem)


Certified = tuple[x509.Certificate, ec.EllipticCurvePrivateKey]


def _certificate(title: str, authority: Certified | None = None) -> Certified:
    """Signed by ``authority``, or one that is an authority itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(
        issuer_name=authority[0].subject if authority else name,
        subject_name=name,
        public_key=key.public_key(),
        serial_number=x509.random_serial_number(),
        not_valid_before=now - day,
        not_valid_after=now + day,
    )
    builder = builder.add_extension(address, critical=False)
    builder = builder.add_extension(x509.BasicConstraints(ca=authority is None, path_length=None), critical=True)
    return builder.sign(authority[1] if authority else key, hashes.SHA256()), key


def _own_ca(env: Environment, variable: str) -> None:
    server, pem = _certified(env)
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint, **{variable: pem})
    works()
    assert _seen(server)[1] == {"boto3", "delta"}


def own_ca_by_aws_ca_bundle(env: Environment) -> None:
    _own_ca(env, "AWS_CA_BUNDLE")


def own_ca_by_ssl_cert_file(env: Environment) -> None:
    _own_ca(env, "SSL_CERT_FILE")


def own_ca_in_a_profile(env: Environment) -> None:
    server, pem = _certified(env)
    env.profile(
        f"[profile studio]\nregion = eu-north-1\n{_PROFILE_KEYS}endpoint_url = {server.endpoint}\nca_bundle = {pem}\n"
    )
    works()


def a_certificate_that_is_not_trusted(env: Environment) -> None:
    server, _ = _certified(env)
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint)
    refused(r"TLS certificate is not trusted \(.*(self-signed|issuer).*AWS_CA_BUNDLE")


def an_authority_that_is_the_server_itself(env: Environment) -> None:
    """boto3 takes it; the TLS library of delta-rs does not."""
    server, pem = _certified(env, itself=True)
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint, AWS_CA_BUNDLE=pem)
    _ours(Storage.open(f"s3://{BUCKET}/place"))
    refused("certificate signed by that authority", "delta")


def a_ca_file_that_is_not_there(env: Environment) -> None:
    server, pem = _certified(env)
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint, AWS_CA_BUNDLE=f"{pem}.none")
    refused(r"ca.pem.none.*AWS_CA_BUNDLE")


# What a server asks for


def _server_that(env: Environment, fault: Callable[[Asked], Answer | None], **variables: str) -> FlatS3:
    server = env.server()
    server.fault = fault
    env.use(**KEYS, AWS_ENDPOINT_URL=server.endpoint, **variables)
    return server


def _unpaid(asked: Asked) -> Answer | None:
    return None if asked.headers.get("x-amz-request-payer") == "requester" else refusal(403, "AccessDenied")


def the_requester_pays(env: Environment) -> None:
    _server_that(env, _unpaid, AWS_REQUEST_PAYER="requester")
    works()


def the_requester_does_not_say_that_he_pays(env: Environment) -> None:
    _server_that(env, _unpaid)
    refused("access denied; .*AWS_REQUEST_PAYER=requester")


def _elsewhere(asked: Asked) -> Answer | None:
    headers = {"x-amz-bucket-region": "eu-west-3"}
    if asked.region == "eu-west-3":
        return None
    return refusal(301, "PermanentRedirect", "<Endpoint>bucket.s3.invalid</Endpoint>", **headers)


def a_bucket_in_another_region(env: Environment) -> None:
    server = _server_that(env, _elsewhere, AWS_REGION="us-east-1")
    works()
    assert {asked.region for asked in server.asked if asked.client == "delta"} == {"eu-west-3"}


def a_server_that_wants_another_region(env: Environment) -> None:
    def fault(asked: Asked) -> Answer | None:
        if asked.region == "eu-west-3":
            return None
        return refusal(400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>")

    _server_that(env, fault, AWS_REGION="us-east-1")
    works()


def a_region_that_is_not_said(env: Environment) -> None:
    _server_that(env, lambda asked: refusal(301, "PermanentRedirect"))
    refused("the bucket is in another region; set AWS_REGION")


def a_clock_that_is_off(env: Environment) -> None:
    behind = (datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=21)).isoformat()
    _server_that(env, lambda asked: refusal(403, "RequestTimeTooSkewed", f"<ServerTime>{behind}</ServerTime>"))
    refused(r"clock of this machine is off by 21 minutes \(behind\)", "ours", "arrow")
    refused("clock of this machine is off", "delta")
