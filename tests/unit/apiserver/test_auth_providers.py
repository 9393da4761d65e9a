"""Users of identity providers: who is believed to be whom, and that nobody brings a name of ours."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from glebe.apiserver.auth import jwt
from glebe.apiserver.auth.authconfig import AuthenticationConfiguration, ConfigError, from_flags, read
from glebe.apiserver.auth.oidc import OidcUsers
from glebe.kube.clock import Env
from glebe.kube.objects import Object

URL = "https://idp.example.org"
KEY = ec.generate_private_key(ec.SECP256R1())


class Provider:
    """An identity provider without its wire."""

    def __init__(self, *keys: jwt.PrivateKey) -> None:
        self.keys = list(keys) or [KEY]
        self.asked: list[str] = []
        self.up = True
        self.issuer = URL

    async def fetch(self, url: str, ca: str) -> bytes:
        self.asked.append(url)
        await asyncio.sleep(0.2)
        if not self.up:
            raise OSError("connection refused")
        if url.endswith("/.well-known/openid-configuration"):
            return orjson.dumps({"issuer": self.issuer, "jwks_uri": f"{URL}/keys"})
        return orjson.dumps({"keys": [jwt.to_jwk(k.public_key()) for k in self.keys]})


def config(**entry: Any) -> AuthenticationConfiguration:
    issuer = {"url": URL, "audiences": ["glebe"], **entry.pop("issuer", {})}
    mappings = {"username": {"claim": "sub", "prefix": "idp:"}, "groups": {"claim": "groups", "prefix": "idp:"}}
    jwt_entry = {"issuer": issuer, "claimMappings": mappings, **entry}
    return read({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration", "jwt": [jwt_entry]})


def token(env: Env, key: jwt.PrivateKey = KEY, **claims: Any) -> str:
    now = env.clock.now()
    base = {"iss": URL, "aud": "glebe", "sub": "ann", "exp": now + 600, "iat": now, "groups": ["dev"]}
    return jwt.sign({**base, **claims}, key)


def users(provider: Provider | None = None, **entry: Any) -> tuple[OidcUsers, Env, Provider]:
    env, provider = Env.seeded(1), provider or Provider()
    return OidcUsers(env, config(**entry).issuers, provider.fetch), env, provider


async def test_a_user_is_who_the_provider_says_in_every_cluster() -> None:
    oidc, env, _ = users()
    for cluster in ("root", "a"):
        user = await oidc.check(token(env), cluster)
        assert user
        assert user.name == "idp:ann"
        assert user.groups == ("idp:dev", "system:authenticated")
    assert await oidc.check(token(env), "*") is None
    assert await oidc.check(token(env), "") is None


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "others"},
        {"aud": ["x", "y"]},
        {"aud": None},
        {"exp": 0},
        {"exp": None},
        {"exp": True},
        {"nbf": 9e12},
        {"iss": "https://evil.example.org"},
        {"sub": ""},
        {"sub": 7},
        {"groups": [7]},
        {"groups": {"a": 1}},
    ],
)
async def test_tokens_that_do_not_hold(claims: Object) -> None:
    oidc, env, _ = users()
    assert await oidc.check(token(env, **claims), "root") is None


@pytest.mark.parametrize(
    ("claims", "prefix"),
    [({"sub": "system:admin"}, ""), ({"groups": ["system:masters"]}, ""), ({"sub": "masters"}, "system:")],
)
async def test_names_of_the_system_are_refused(claims: Object, prefix: str) -> None:
    mappings = {"username": {"claim": "sub", "prefix": prefix}, "groups": {"claim": "groups", "prefix": prefix}}
    oidc, env, _ = users(claimMappings=mappings)
    assert await oidc.check(token(env, **claims), "root") is None


async def test_a_strangers_key_and_a_weaker_algorithm() -> None:
    oidc, env, _ = users()
    assert await oidc.check(token(env, ec.generate_private_key(ec.SECP256R1())), "root") is None
    good = token(env)
    head, body, tail = good.split(".")
    none = jwt.encode(orjson.dumps({"alg": "none"}))
    assert await oidc.check(f"{none}.{body}.", "root") is None
    assert await oidc.check(f"{none}.{body}.{tail}", "root") is None
    assert await oidc.check(good, "root")
    assert head


async def test_an_email_counts_when_it_is_verified() -> None:
    oidc, env, _ = users(claimMappings={"username": {"claim": "email", "prefix": ""}})
    address = "ann@example.org"
    assert await oidc.check(token(env, email=address), "root")
    assert await oidc.check(token(env, email=address, email_verified=True), "root")
    assert await oidc.check(token(env, email=address, email_verified=False), "root") is None
    assert await oidc.check(token(env, email=address, email_verified="true"), "root") is None


async def test_expressions_map_and_judge() -> None:
    oidc, env, _ = users(
        claimMappings={
            "username": {"expression": "claims.sub + '@' + claims.org"},
            "groups": {"expression": "claims.groups.map(g, 'team-' + g)"},
            "uid": {"expression": "claims.sub"},
            "extra": [{"key": "example.org/org", "valueExpression": "claims.org"}],
        },
        claimValidationRules=[
            {"claim": "hd", "requiredValue": "example.org"},
            {"expression": "claims.org != 'evil'", "message": "not evil"},
        ],
        userValidationRules=[{"expression": "!user.username.startsWith('root')", "message": "no roots"}],
    )
    user = await oidc.check(token(env, org="x", hd="example.org"), "root")
    assert user
    assert (user.name, user.uid, user.groups[0], user.extra["example.org/org"]) == ("ann@x", "ann", "team-dev", ("x",))
    assert await oidc.check(token(env, org="evil", hd="example.org"), "root") is None
    assert await oidc.check(token(env, org="x"), "root") is None
    assert await oidc.check(token(env, hd="example.org"), "root") is None
    assert await oidc.check(token(env, sub="root", org="x", hd="example.org"), "root") is None


async def test_keys_are_fetched_once_and_again_for_a_new_one() -> None:
    oidc, env, provider = users()
    results = await asyncio.gather(*(oidc.check(token(env, sub=f"u{i}"), "root") for i in range(20)))
    assert all(results)
    assert len(provider.asked) == 2  # the document and the keys
    fresh = rsa.generate_private_key(65537, 2048)
    provider.keys = [fresh]
    assert await oidc.check(token(env, fresh), "root") is None  # just asked
    await asyncio.sleep(10)
    assert await oidc.check(token(env, fresh), "root")
    for _ in range(50):
        assert await oidc.check(token(env, ec.generate_private_key(ec.SECP256R1())), "root") is None
    assert len(provider.asked) == 4


async def test_a_provider_that_is_away_does_not_take_its_users_along() -> None:
    oidc, env, provider = users()
    assert await oidc.check(token(env), "root")
    provider.up = False
    await asyncio.sleep(2 * 3600)
    assert await oidc.check(token(env), "root")
    away, env, _ = users(Provider())
    away_provider = Provider()
    away_provider.up = False
    away = OidcUsers(env, config().issuers, away_provider.fetch)
    assert await away.check(token(env), "root") is None
    away_provider.up = True
    await asyncio.sleep(10)
    assert await away.check(token(env), "root")


async def test_a_provider_that_calls_itself_otherwise_is_not_believed() -> None:
    provider = Provider()
    provider.issuer = "https://evil.example.org"
    oidc, env, _ = users(provider)
    assert await oidc.check(token(env), "root") is None


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"issuer": {"url": "http://idp.example.org"}}, r"jwt\[0\].issuer.url"),
        ({"issuer": {"audiences": []}}, r"jwt\[0\].issuer.audiences"),
        ({"issuer": {"audiences": ["a", "b"]}}, "audienceMatchPolicy"),
        ({"claimMappings": {}}, r"jwt\[0\].claimMappings.username"),
        ({"claimMappings": {"username": {"claim": "sub"}}}, "prefix"),
        ({"claimMappings": {"username": {"claim": "sub", "expression": "x", "prefix": ""}}}, "both"),
        ({"claimValidationRules": [{"claim": "a", "expression": "b"}]}, r"claimValidationRules\[0\]"),
        ({"userValidationRules": [{"claim": "a"}]}, r"userValidationRules\[0\].expression"),
        (
            {
                "claimMappings": {
                    "username": {"claim": "sub", "prefix": ""},
                    "extra": [{"key": "k8s.io/x", "valueExpression": "claims.a"}],
                }
            },
            "reserved",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_names_the_field(change: Object, field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        config(**change)


def test_an_expression_that_does_not_compile_is_said_at_the_start() -> None:
    with pytest.raises(ConfigError, match="does not compile"):
        users(claimValidationRules=[{"expression": "claims.("}])


def test_flags_make_the_same() -> None:
    issuer = from_flags({"issuer_url": URL, "client_id": "glebe", "groups_claim": "groups", "required_claim": ["a=b"]})
    assert (issuer.username.prefix, issuer.audiences, issuer.algorithms) == (f"{URL}#", ("glebe",), ("RS256",))
    assert from_flags({"issuer_url": URL, "client_id": "x", "username_claim": "email"}).username.prefix == ""
    assert from_flags({"issuer_url": URL, "client_id": "x", "username_prefix": "-"}).username.prefix == ""
    with pytest.raises(ConfigError, match="oidc-client-id"):
        from_flags({"issuer_url": URL})
    with pytest.raises(ConfigError, match="https"):
        from_flags({"issuer_url": "http://x", "client_id": "x"})
