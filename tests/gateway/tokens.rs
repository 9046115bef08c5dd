//! JWTs: sources, keys, claims, forgeries.
use crate::support::gateway::Setup;
use crate::support::raw::upgrade_head;
use crate::support::token::good;
use crate::support::*;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::KeyPair;
use serde_json::json;

/// Refusals by status, tokens by HS256; more keys of `[auth]` may follow.
fn config(auth: &str) -> String {
    format!("{PLAIN}{ECHO}{SECRET_AUTH}on_reject = \"http\"\n{auth}\n")
}

/// The same with another key than the secret.
fn config_with_key(key: &str) -> String {
    format!("{PLAIN}{ECHO}[auth]\non_reject = \"http\"\n{key}\n")
}

async fn answer(gateway: &Gateway, path: &str, headers: &[&str]) -> raw::Head {
    let mut raw = gateway.raw().await;
    raw.send(upgrade_head(path, headers)).await;
    raw.read_head().await
}

async fn status(gateway: &Gateway, token: &str) -> u16 {
    answer(gateway, "/echo", &[&format!("Authorization: Bearer {token}")]).await.status
}

fn part(json: serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

#[tokio::test]
async fn every_source_of_the_upgrade_is_looked_at() {
    let gateway = Gateway::start(&config("")).await;
    let token = good("alice");
    let bearer = format!("Authorization: Bearer {token}");
    assert_eq!(answer(&gateway, "/echo", &[&bearer]).await.status, 101, "header");
    let lower = format!("authorization: bearer {token}");
    assert_eq!(answer(&gateway, "/echo", &[&lower]).await.status, 101, "the scheme's case does not matter");
    let cookie = format!("Cookie: theme=dark; token={token}; other=1");
    assert_eq!(answer(&gateway, "/echo", &[&cookie]).await.status, 101, "cookie");
    let query = format!("/echo?a=b&token={token}");
    assert_eq!(answer(&gateway, &query, &[]).await.status, 101, "query");
    let pair = format!("Sec-WebSocket-Protocol: bearer, {token}");
    let head = answer(&gateway, "/echo", &[&pair]).await;
    assert_eq!(head.status, 101, "subprotocol");
    assert_eq!(head.header("sec-websocket-protocol"), Some("bearer"), "the token itself is never named");
}

#[tokio::test]
async fn the_names_of_the_sources_can_be_changed() {
    let gateway = Gateway::start(&config("query = \"access\"\ncookie = \"session\"\nsubprotocol = \"jwt\"")).await;
    let token = good("alice");
    for (path, header) in [
        (format!("/echo?access={token}"), "X-Nothing: 1".to_owned()),
        ("/echo".to_owned(), format!("Cookie: session={token}")),
        ("/echo".to_owned(), format!("Sec-WebSocket-Protocol: jwt, {token}")),
    ] {
        assert_eq!(answer(&gateway, &path, &[&header]).await.status, 101, "{path} {header}");
    }
    assert_eq!(answer(&gateway, &format!("/echo?token={token}"), &[]).await.status, 401);
}

#[tokio::test]
async fn sources_that_are_off_are_not_looked_at() {
    let gateway = Gateway::start(&config("sources = [\"header\"]")).await;
    let token = good("alice");
    assert_eq!(status(&gateway, &token).await, 101);
    assert_eq!(answer(&gateway, &format!("/echo?token={token}"), &[]).await.status, 401);
    assert_eq!(answer(&gateway, "/echo", &[&format!("Cookie: token={token}")]).await.status, 401);
    assert_eq!(answer(&gateway, "/echo", &[&format!("Sec-WebSocket-Protocol: bearer, {token}")]).await.status, 401);
}

/// Any page could make a browser send the cookie.
#[tokio::test]
async fn a_cookie_does_not_count_where_any_origin_may_come() {
    let gateway = Gateway::start(&(config("") + "[origins]\nallow = [\"*\"]\n")).await;
    let cookie = format!("Cookie: token={}", good("alice"));
    assert_eq!(answer(&gateway, "/echo", &[&cookie]).await.status, 401);
}

#[tokio::test]
async fn no_token_and_a_bad_one_are_told_apart() {
    let gateway = Gateway::start(&config("")).await;
    for (headers, code) in [(vec![], 4001), (vec!["Authorization: Bearer a.b.c"], 4002)] {
        let mut raw = gateway.raw().await;
        raw.send(upgrade_head("/echo", &headers)).await;
        let head = raw.read_head().await;
        assert_eq!(head.status, 401);
        assert!(head.header("www-authenticate").is_some_and(|v| v.starts_with("Bearer")), "{head:?}");
        let body: serde_json::Value = serde_json::from_slice(&raw.read_body(&head).await).unwrap();
        assert_eq!(body["error"]["code"], code, "{body}");
    }
    let closing = Gateway::start(&config("").replace("\"http\"", "\"close\"")).await;
    closing.open("/echo").await.closes_with(4001).await;
    closing.open_as("/echo", "a.b.c").await.closes_with(4002).await;
}

#[tokio::test]
async fn forged_tokens_are_refused() {
    let gateway = Gateway::start(&config("leeway = \"0s\"")).await;
    let (alice, bob) = (good("alice"), good("bob"));
    let cut = |token: &str, n: usize| token[..token.len() - n].to_owned();
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (a, b) = (parts(&alice), parts(&bob));
    let body = json!({"sub": "alice", "exp": token::now() + 3600});
    let other = EncodingKey::from_secret(b"another secret than the gateway's");
    let table = [
        ("empty", String::new()),
        ("one dot", ".".to_owned()),
        ("two dots", "..".to_owned()),
        ("garbage", "garbage".to_owned()),
        ("the last byte cut", cut(&alice, 1)),
        ("half a signature", cut(&alice, 20)),
        ("no signature", format!("{}.{}.", a[0], a[1])),
        ("no dot before the signature", format!("{}.{}", a[0], a[1])),
        ("another's signature", format!("{}.{}.{}", a[0], a[1], b[2])),
        ("another's claims", format!("{}.{}.{}", a[0], b[1], a[2])),
        ("a fourth part", format!("{alice}.x")),
        ("padding", format!("{alice}=")),
        ("alg none", format!("{}.{}.", part(json!({"alg": "none", "typ": "JWT"})), part(body.clone()))),
        ("alg NONE with a signature", format!("{}.{}.{}", part(json!({"alg": "NONE"})), part(body.clone()), a[2])),
        ("no alg", format!("{}.{}.{}", part(json!({"typ": "JWT"})), part(body), a[2])),
        ("another secret", Token::of("alice").sign_with(&Header::new(Algorithm::HS256), &other)),
        ("an algorithm that is not listed", {
            Token::of("alice").sign_with(&Header::new(Algorithm::HS512), &EncodingKey::from_secret(SECRET.as_bytes()))
        }),
        ("expired", Token::of("alice").expires_in(-5).sign()),
        ("no exp", Token::of("alice").without("exp").sign()),
        ("exp as text", Token::of("alice").with("exp", (token::now() + 60).to_string()).sign()),
        ("no client", Token::of("alice").without("sub").sign()),
        ("a client that is a list", Token::of("alice").with("sub", json!(["alice"])).sign()),
        ("an empty client", Token::of("").sign()),
        ("a client of 129 bytes", Token::of(&"x".repeat(129)).sign()),
        ("a client with a control", Token::of("a\nb").sign()),
    ];
    for (name, token) in &table {
        assert_eq!(status(&gateway, token).await, 401, "{name}");
    }
    assert_eq!(status(&gateway, &alice).await, 101, "and the good one passes");
    assert_eq!(status(&gateway, &Token::of(&"x".repeat(128)).sign()).await, 101, "a client of 128 bytes");
    assert_eq!(
        status(&gateway, &Token::of("").with("sub", 7).sign()).await,
        101,
        "a whole number is a name, in digits"
    );
}

#[tokio::test]
async fn a_bad_token_in_an_early_source_is_not_saved_by_a_good_one_later() {
    let gateway = Gateway::start(&config("")).await;
    let path = format!("/echo?token={}", good("alice"));
    assert_eq!(answer(&gateway, &path, &["Authorization: Bearer a.b.c"]).await.status, 401);
}

#[tokio::test]
async fn times_have_the_leeway_and_no_more() {
    let gateway = Gateway::start(&config("leeway = \"60s\"")).await;
    assert_eq!(status(&gateway, &Token::of("alice").expires_in(-20).sign()).await, 101, "expired within the leeway");
    assert_eq!(status(&gateway, &Token::of("alice").expires_in(-120).sign()).await, 401, "expired beyond it");
    let not_before = |seconds: i64| Token::of("alice").with("nbf", token::now() + seconds).sign();
    assert_eq!(status(&gateway, &not_before(30)).await, 101, "nbf within the leeway");
    assert_eq!(status(&gateway, &not_before(600)).await, 401, "nbf beyond it");
    assert_eq!(status(&gateway, &Token::of("alice").with("nbf", "soon").sign()).await, 401, "nbf as text");
}

#[tokio::test]
async fn issuer_and_audience_are_enforced_also_when_missing_or_of_a_wrong_type() {
    let gateway = Gateway::start(&config("issuer = \"https://id.test/\"\naudience = [\"chat\", \"live\"]")).await;
    let base = Token::of("alice").with("iss", "https://id.test/").with("aud", "chat");
    assert_eq!(status(&gateway, &base.sign()).await, 101);
    assert_eq!(
        status(&gateway, &base.clone().with("aud", json!(["other", "live"])).sign()).await,
        101,
        "one of a list"
    );
    for (name, token) in [
        ("no iss", base.clone().without("iss")),
        ("another iss", base.clone().with("iss", "https://id.test")),
        ("iss as a number", base.clone().with("iss", 7)),
        ("iss as a list", base.clone().with("iss", json!(["https://evil.test/"]))),
        ("no aud", base.clone().without("aud")),
        ("another aud", base.clone().with("aud", "other")),
        ("aud as a number", base.clone().with("aud", 7)),
        ("aud as an object", base.clone().with("aud", json!({"chat": true}))),
        ("an empty list", base.clone().with("aud", json!([]))),
        ("aud null", base.clone().with("aud", json!(null))),
    ] {
        assert_eq!(status(&gateway, &token.sign()).await, 401, "{name}");
    }
}

#[tokio::test]
async fn a_public_key_checks_signatures_and_is_no_secret() {
    for (algorithm, name, key) in asymmetric() {
        let private = private_key(algorithm, &key);
        let public = key.public_key_pem();
        let setup = Setup::new().file("jwt.pem", &public);
        let config = config_with_key(&format!("public_key = \"jwt.pem\"\nalgorithms = [\"{name}\"]"));
        let gateway = setup.start(&config).await;
        let good = Token::of("alice").sign_with(&Header::new(algorithm), &private);
        assert_eq!(status(&gateway, &good).await, 101, "{name}");
        let secret = EncodingKey::from_secret(public.as_bytes());
        let confused = Token::of("alice").sign_with(&Header::new(Algorithm::HS256), &secret);
        assert_eq!(status(&gateway, &confused).await, 401, "{name}: HS256 signed with the public key");
        let (_, _, other) = asymmetric().into_iter().find(|(a, ..)| *a == algorithm).unwrap();
        let other = Token::of("alice").sign_with(&Header::new(algorithm), &private_key(algorithm, &other));
        assert_eq!(status(&gateway, &other).await, 401, "{name}: another key of the same kind");
    }
}

/// A fresh key of each kind.
fn asymmetric() -> Vec<(Algorithm, &'static str, KeyPair)> {
    let rsa = || KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let of = |kind| KeyPair::generate_for(kind).unwrap();
    vec![
        (Algorithm::RS256, "RS256", rsa()),
        (Algorithm::PS256, "PS256", rsa()),
        (Algorithm::ES256, "ES256", of(&rcgen::PKCS_ECDSA_P256_SHA256)),
        (Algorithm::ES384, "ES384", of(&rcgen::PKCS_ECDSA_P384_SHA384)),
        (Algorithm::EdDSA, "EdDSA", of(&rcgen::PKCS_ED25519)),
    ]
}

fn private_key(algorithm: Algorithm, key: &KeyPair) -> EncodingKey {
    let pem = key.serialize_pem();
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => EncodingKey::from_ec_pem(pem.as_bytes()),
        Algorithm::EdDSA => EncodingKey::from_ed_pem(pem.as_bytes()),
        _ => EncodingKey::from_rsa_pem(pem.as_bytes()),
    }
    .unwrap()
}

/// The public half of a P-256 key as a JWK with more members.
fn jwk(key: &KeyPair, more: serde_json::Value) -> serde_json::Value {
    let point = key.public_key_raw();
    let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
    let mut jwk = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y});
    jwk.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    jwk
}

#[tokio::test]
async fn a_jwks_file_is_obeyed_to_the_letter() {
    let keys: Vec<KeyPair> = (0..4).map(|_| KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()).collect();
    let set = json!({"keys": [
        jwk(&keys[0], json!({"kid": "one"})),
        jwk(&keys[1], json!({"kid": "two", "alg": "ES256", "use": "sig"})),
        jwk(&keys[2], json!({"kid": "enc", "use": "enc"})),
        jwk(&keys[3], json!({"kid": "alg", "alg": "ES384"})),
        {"kty": "oct", "kid": "oct", "k": URL_SAFE_NO_PAD.encode(SECRET)},
    ]});
    let setup = Setup::new().file("jwks.json", set.to_string());
    let config = config_with_key("jwks = \"jwks.json\"\nalgorithms = [\"ES256\", \"HS256\"]");
    // A set of public keys and a list with HS256 may already be refused as a configuration.
    let config = config.replace(", \"HS256\"", "");
    let gateway = setup.start(&config).await;
    let signed = |key: &KeyPair, kid: Option<&str>| {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = kid.map(str::to_owned);
        Token::of("alice").sign_with(&header, &private_key(Algorithm::ES256, key))
    };
    for (name, token, wanted) in [
        ("by its kid", signed(&keys[0], Some("one")), 101),
        ("another by its kid", signed(&keys[1], Some("two")), 101),
        ("another's kid", signed(&keys[0], Some("two")), 401),
        ("an unknown kid", signed(&keys[0], Some("nine")), 401),
        ("a key for encryption", signed(&keys[2], Some("enc")), 401),
        ("a key for another algorithm", signed(&keys[3], Some("alg")), 401),
    ] {
        assert_eq!(status(&gateway, &token).await, wanted, "{name}");
    }
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("oct".to_owned());
    let shared = Token::of("alice").sign_with(&header, &EncodingKey::from_secret(SECRET.as_bytes()));
    assert_eq!(status(&gateway, &shared).await, 401, "a shared secret in a set of public keys");
}

#[tokio::test]
async fn the_secret_may_come_from_the_environment() {
    let setup = Setup::new().environment("SOME_SECRET", SECRET);
    let gateway = setup.start(&config_with_key("secret_env = \"SOME_SECRET\"")).await;
    assert_eq!(status(&gateway, &good("alice")).await, 101);
}

#[tokio::test]
async fn another_claim_may_name_the_client() {
    let gateway = Gateway::start(&format!("{PLAIN}{ROOMS}{SECRET_AUTH}client_id = \"user\"\n")).await;
    let token = Token::of("ignored").with("user", "alice").sign();
    let mut client = gateway.open_as("/ws", &token).await;
    assert_eq!(client.expect("connection_established").await["payload"]["client_id"], "alice");
}

#[tokio::test]
async fn tokens_never_reach_the_log() {
    let config = format!("[server]\nlog = \"trace\"\n{}{ADMIN}", config(""));
    let gateway = Gateway::start(&config).await;
    let (good, bad) = (good("alice"), Token::of("alice").expires_in(-999).sign());
    for token in [&good, &bad] {
        answer(&gateway, &format!("/echo?token={token}"), &[]).await;
        answer(&gateway, "/echo", &[&format!("Cookie: token={token}")]).await;
        answer(&gateway, "/echo", &[&format!("Sec-WebSocket-Protocol: bearer, {token}")]).await;
        status(&gateway, token).await;
    }
    let (_, metrics) = gateway.admin_get("/metrics").await;
    let mut gateway = gateway;
    gateway.stop().await;
    let everything = gateway.log() + &gateway.output() + &metrics;
    for token in [&good, &bad] {
        for piece in token.split('.').skip(1) {
            assert!(!everything.contains(piece), "a token was logged");
        }
    }
}

/// Browsers take no 101 that names none of the subprotocols they offered, and would show 1006.
#[tokio::test]
async fn a_refusal_names_the_subprotocol_that_was_offered_without_a_token() {
    let gateway = Gateway::start(&format!("{PLAIN}{ECHO}{SECRET_AUTH}")).await;
    for (offered, named) in [("bearer", "bearer"), ("chat, bearer", "chat"), ("bearer, x.y.z", "bearer")] {
        let head = answer(&gateway, "/echo", &[&format!("Sec-WebSocket-Protocol: {offered}")]).await;
        assert_eq!(head.status, 101, "{head:?}");
        assert_eq!(head.header("sec-websocket-protocol"), Some(named), "{offered}");
    }
}
