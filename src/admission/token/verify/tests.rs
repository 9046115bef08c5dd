#![allow(clippy::unwrap_used)]
use super::*;
use crate::admission::token::tests::{NOW, SECRET, at, auth};
use crate::config::keys::tests::Directory;
use Algorithm::*;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData};
use serde_json::json;
use std::sync::{Arc, Mutex, OnceLock};

const EVERY: [Algorithm; 12] = [HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];

/// Key pairs made for this run.
struct Pairs {
    rsa: KeyPair,
    p256: KeyPair,
    p384: KeyPair,
    ed: KeyPair,
}

impl Pairs {
    fn for_alg(&self, alg: Algorithm) -> &KeyPair {
        match alg {
            ES256 => &self.p256,
            ES384 => &self.p384,
            EdDSA => &self.ed,
            _ => &self.rsa,
        }
    }
}

fn pairs() -> &'static Pairs {
    static PAIRS: OnceLock<Pairs> = OnceLock::new();
    PAIRS.get_or_init(|| Pairs {
        rsa: KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap(),
        p256: KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(),
        p384: KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap(),
        ed: KeyPair::generate_for(&PKCS_ED25519).unwrap(),
    })
}

fn encoding(alg: Algorithm) -> EncodingKey {
    let pem = pairs().for_alg(alg).serialize_pem();
    match alg.family() {
        AlgorithmFamily::Hmac => EncodingKey::from_secret(SECRET.as_bytes()),
        AlgorithmFamily::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
        AlgorithmFamily::Ec => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
        AlgorithmFamily::Ed => EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
    }
}

fn claims() -> Value {
    json!({"sub": "ann", "exp": NOW + 60})
}

fn token(alg: Algorithm, kid: Option<&str>) -> String {
    install_provider();
    encode(&Header { kid: kid.map(str::to_owned), ..Header::new(alg) }, &claims(), &encoding(alg)).unwrap()
}

/// A token put together by hand: header and claims as they are, HS256 with `secret`.
fn by_hand(header: &str, claims: &str, secret: &[u8]) -> String {
    install_provider();
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = EncodingKey::from_secret(secret);
    let signature = jsonwebtoken::crypto::sign(message.as_bytes(), &key, HS256).unwrap();
    format!("{message}.{signature}")
}

fn verifier(auth: &Auth) -> Verifier {
    Verifier::load(auth).unwrap().unwrap()
}

fn outcome(verifier: &Verifier, token: &str) -> Result<(), TokenFault> {
    verifier.verify(token, at(NOW)).map(drop)
}

const INVALID: Result<(), TokenFault> = Err(TokenFault::Invalid);
const UNKNOWN: Result<(), TokenFault> = Err(TokenFault::UnknownKey);

fn public_key(directory: &Directory, alg: Algorithm, algorithms: &[Algorithm]) -> Auth {
    let path = directory.with("key.pem", pairs().for_alg(alg).public_key_pem());
    Auth { key: Some(KeySource::PublicKey(path)), algorithms: algorithms.to_vec(), ..auth() }
}

fn jwk(alg: Algorithm, changes: Value) -> Value {
    install_provider();
    let pem = pairs().for_alg(alg).public_key_pem();
    let key = match alg.family() {
        AlgorithmFamily::Ec => DecodingKey::from_ec_pem(pem.as_bytes()),
        AlgorithmFamily::Ed => DecodingKey::from_ed_pem(pem.as_bytes()),
        _ => DecodingKey::from_rsa_pem(pem.as_bytes()),
    };
    let mut jwk = serde_json::to_value(Jwk::from_decoding_key(&key.unwrap(), None).unwrap()).unwrap();
    jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    jwk
}

fn set(directory: &Directory, keys: &[Value]) -> Auth {
    let path = directory.with("jwks.json", json!({ "keys": keys, "other": 1 }).to_string());
    Auth { key: Some(KeySource::Jwks(path)), algorithms: EVERY.to_vec(), ..auth() }
}

#[test]
fn every_algorithm() {
    let directory = Directory::new();
    for alg in EVERY {
        let auth = match alg.family() {
            AlgorithmFamily::Hmac => Auth { algorithms: EVERY.to_vec(), ..auth() },
            _ => public_key(&directory, alg, &EVERY),
        };
        let verifier = verifier(&auth);
        let identity = verifier.verify(&token(alg, Some("ignored")), at(NOW)).unwrap();
        assert_eq!((&*identity.client, identity.expires_at), ("ann", Some(NOW + 60)), "{alg:?}");
        let late = verifier.verify(&token(alg, None), at(NOW + 90));
        assert_eq!(late.unwrap_err(), TokenFault::Expired, "{alg:?}");
        for other in EVERY {
            let is_same_key = alg.family() == other.family() && (alg.family() != AlgorithmFamily::Ec || alg == other);
            assert_eq!(outcome(&verifier, &token(other, None)).is_ok(), is_same_key, "{alg:?} key, {other:?} token");
        }
        // The algorithm must also be configured.
        let others: Vec<Algorithm> = EVERY.into_iter().filter(|other| *other != alg).collect();
        match Verifier::load(&Auth { algorithms: others, ..auth }) {
            Ok(verifier) => assert_eq!(outcome(&verifier.unwrap(), &token(alg, None)), INVALID, "{alg:?}"),
            Err(error) => assert!(error.to_string().contains("auth.algorithms"), "{error}"),
        }
    }
}

#[test]
fn a_public_key_is_no_secret() {
    let directory = Directory::new();
    for alg in [RS256, ES256, EdDSA] {
        let pair = pairs().for_alg(alg);
        let pem = pair.public_key_pem();
        let as_file = verifier(&public_key(&directory, alg, &EVERY));
        let as_set = verifier(&set(&directory, &[jwk(alg, json!({"kid": "a"}))]));
        for secret in [pem.as_bytes(), pem.trim().as_bytes(), pair.public_key_raw(), &pair.subject_public_key_info()] {
            let forged = by_hand(r#"{"alg":"HS256","kid":"a"}"#, &claims().to_string(), secret);
            assert_eq!(outcome(&as_file, &forged), INVALID, "{alg:?}");
            assert_eq!(outcome(&as_set, &forged), INVALID, "{alg:?}");
        }
    }
}

#[test]
fn malformed_tokens() {
    let verifier = verifier(&auth());
    let good = token(HS256, None);
    assert_eq!(outcome(&verifier, &good), Ok(()));
    let parts: Vec<&str> = good.split('.').collect();
    let (header, payload, signature) = (parts[0], parts[1], parts[2]);
    let none = URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#);
    let other = token(HS384, None);
    for bad in [
        String::new(),
        ".".into(),
        "..".into(),
        "a.b".into(),
        "a.b.c".into(),
        "\u{fc}.\u{fc}.\u{fc}".into(),
        format!("{header}.{payload}"),
        format!("{header}.{payload}."),
        format!("{header}.{payload}.{signature}."),
        format!("{header}.{payload}.{signature}.{signature}"),
        format!(" {good}"),
        format!("{good} "),
        format!("{good}="),
        format!("{good}A"),
        good[..good.len() - 1].into(),
        good[1..].into(),
        format!("{payload}.{header}.{signature}"),
        format!("{header}.{}.{signature}", other.split('.').next().unwrap()),
        format!("{none}.{payload}."),
        format!("{none}.{payload}.{signature}"),
        format!("{}.{payload}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"None"}"#)),
        by_hand(r#"{"alg":"none"}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS384"}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":"hs256"}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":["HS256"]}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":"none","alg":"HS256"}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"typ":"JWT"}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256","crit":[]}"#, &claims().to_string(), SECRET.as_bytes()),
        by_hand("[]", &claims().to_string(), SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256"}"#, &claims().to_string(), b"another secret of more than 32 bytes"),
        by_hand(r#"{"alg":"HS256"}"#, &claims().to_string(), b""),
        by_hand(r#"{"alg":"HS256"}"#, "[]", SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256"}"#, "null", SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256"}"#, "", SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256"}"#, r#"{"sub":"ann","exp":1000000060"#, SECRET.as_bytes()),
        by_hand(r#"{"alg":"HS256"}"#, &format!("{}{}", "[".repeat(3000), "]".repeat(3000)), SECRET.as_bytes()),
    ] {
        assert_eq!(outcome(&verifier, &bad), INVALID, "{bad}");
    }
    // Each bit of the signature counts, and of the message.
    for place in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[place] = if bytes[place] == b'A' { b'B' } else { b'A' };
        assert_eq!(outcome(&verifier, &String::from_utf8(bytes).unwrap()), INVALID, "place {place}");
    }
}

#[test]
fn claims_of_odd_types_do_no_harm() {
    let verifier = verifier(&auth());
    let good = |claims: &str| outcome(&verifier, &by_hand(r#"{"alg":"HS256"}"#, claims, SECRET.as_bytes()));
    assert_eq!(good(r#"{"sub":42,"exp":1000000060.5,"iss":7,"aud":true,"nbf":1}"#), Ok(()));
    assert_eq!(good(r#"{"sub":"\u00e5","exp":1e9,"aud":["x"],"iat":"yesterday"}"#), Ok(()));
    assert_eq!(good(r#"{"sub":"ann","exp":"1000000060"}"#), INVALID);
    assert_eq!(good(r#"{"sub":"ann","exp":1e999}"#), INVALID);
    assert_eq!(good(r#"{"sub":"ann","exp":99999999999999999999999}"#), INVALID);
    assert_eq!(good(r#"{"sub":{},"exp":1000000060}"#), INVALID);
}

#[test]
fn long_tokens_are_not_looked_into() {
    let verifier = verifier(&auth());
    let padded = |bytes: usize| {
        let claims = json!({"sub": "ann", "exp": NOW + 60, "pad": "x".repeat(bytes)}).to_string();
        by_hand(r#"{"alg":"HS256"}"#, &claims, SECRET.as_bytes())
    };
    assert_eq!(outcome(&verifier, &padded(5900)), Ok(()));
    assert!(padded(6100).len() > TOKEN_BYTES_MAX);
    assert_eq!(outcome(&verifier, &padded(6100)), INVALID);
}

#[test]
fn keys_of_a_set_are_chosen_by_kid() {
    let directory = Directory::new();
    let all: Vec<Value> = [(RS256, "r"), (ES256, "e"), (ES384, "f"), (EdDSA, "d")]
        .map(|(alg, kid)| jwk(alg, json!({ "kid": kid, "use": "sig", "key_ops": ["verify"] })))
        .to_vec();
    let verifier_of_all = verifier(&set(&directory, &all));
    for (alg, kid, expected) in [
        (RS256, Some("r"), Ok(())),
        (PS512, Some("r"), Ok(())),
        (ES256, Some("e"), Ok(())),
        (ES384, Some("f"), Ok(())),
        (EdDSA, Some("d"), Ok(())),
        (ES256, Some("r"), INVALID),
        (ES256, Some("f"), INVALID),
        (RS256, Some("unknown"), UNKNOWN),
        (RS256, Some(""), UNKNOWN),
        // Without a kid: the one key that the algorithm fits.
        (ES256, None, Ok(())),
        (HS256, Some("r"), INVALID),
        (HS256, None, INVALID),
    ] {
        assert_eq!(outcome(&verifier_of_all, &token(alg, kid)), expected, "{alg:?} {kid:?}");
    }
    let mut two = all;
    two.push(jwk(RS256, json!({"kid": "second"})));
    let verifier_of_two = verifier(&set(&directory, &two));
    assert_eq!(outcome(&verifier_of_two, &token(RS256, None)), INVALID, "two keys fit");
    assert_eq!(outcome(&verifier_of_two, &token(RS256, Some("second"))), Ok(()));
    assert_eq!(outcome(&verifier_of_two, &token(ES256, None)), Ok(()));
    let nameless = verifier(&set(&directory, &[jwk(ES256, json!({}))]));
    assert_eq!(outcome(&nameless, &token(ES256, None)), Ok(()));
    assert_eq!(outcome(&nameless, &token(ES256, Some("e"))), UNKNOWN);
    let twins = verifier(&set(&directory, &[jwk(ES256, json!({"kid": "k"})), jwk(EdDSA, json!({"kid": "k"}))]));
    assert_eq!(outcome(&twins, &token(EdDSA, Some("k"))), Ok(()));
}

#[test]
fn what_a_key_says_of_itself_is_obeyed() {
    let directory = Directory::new();
    let short = URL_SAFE_NO_PAD.encode([0xff; 128]);
    let padded = URL_SAFE_NO_PAD.encode([&[0; 200][..], &[0xff; 200]].concat());
    let huge = URL_SAFE_NO_PAD.encode([0xff; 1025]);
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    for (alg, changes) in [
        (RS256, json!({"use": "enc"})),
        (RS256, json!({"use": "other"})),
        (RS256, json!({"use": 7})),
        (RS256, json!({"key_ops": ["sign", "encrypt"]})),
        (RS256, json!({"key_ops": []})),
        (RS256, json!({"key_ops": "verify"})),
        (RS256, json!({"alg": "RS512"})),
        (RS256, json!({"alg": "RSA-OAEP"})),
        (RS256, json!({"alg": "unknown"})),
        (RS256, json!({"alg": "HS256"})),
        (RS256, json!({"alg": "ES256"})),
        (RS256, json!({"n": short})),
        (RS256, json!({"n": padded})),
        (RS256, json!({"n": huge})),
        (RS256, json!({"n": ""})),
        (RS256, json!({"n": "not base64!"})),
        (RS256, json!({"e": "!"})),
        (RS256, json!({"d": "AQAB"})),
        (RS256, json!({"kty": "rsa"})),
        (RS256, json!({"kty": "EC"})),
        (HS256, json!({})),
        (HS256, json!({"kty": "oct", "k": secret, "alg": "HS256", "use": "sig"})),
        (ES256, json!({"crv": "P-384"})),
        (ES256, json!({"crv": "P-521"})),
        (ES256, json!({"crv": "secp256k1"})),
        (ES256, json!({"crv": "Ed25519"})),
        (ES256, json!({"x": "AA"})),
        (ES384, json!({"crv": "P-256"})),
        (EdDSA, json!({"crv": "Ed448"})),
        (EdDSA, json!({"crv": "P-256"})),
        (EdDSA, json!({"x": "AA"})),
        (EdDSA, json!({"alg": "ES256"})),
    ] {
        let odd = if alg == HS256 { json!({"kty": "oct", "k": secret}) } else { jwk(alg, json!({})) };
        let mut odd = odd;
        odd.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        odd.as_object_mut().unwrap().insert("kid".into(), json!("odd"));
        let good = if alg == EdDSA { ES256 } else { EdDSA };
        let verifier = verifier(&set(&directory, &[odd.clone(), jwk(good, json!({"kid": "good"}))]));
        assert!(outcome(&verifier, &token(alg, Some("odd"))).is_err(), "{odd}");
        assert_eq!(outcome(&verifier, &token(good, Some("good"))), Ok(()), "one bad key does not spoil the set");
        let alone = Auth { algorithms: vec![RS256, ES256, ES384, EdDSA, HS256], ..set(&directory, &[odd]) };
        let error = Verifier::load(&alone).unwrap_err();
        assert!(error.to_string().contains("no key that"), "{error}");
    }
    let pinned = verifier(&set(&directory, &[jwk(RS256, json!({"alg": "PS256"}))]));
    assert_eq!(outcome(&pinned, &token(PS256, None)), Ok(()));
    assert_eq!(outcome(&pinned, &token(RS256, None)), INVALID);
}

#[test]
fn files_that_hold_no_keys() {
    let directory = Directory::new();
    let reason = |auth: &Auth| {
        let error = Verifier::load(auth).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("hush"));
        error.to_string()
    };
    let jwks = |text: &str| Auth { key: Some(KeySource::Jwks(directory.with("set", text))), ..set(&directory, &[]) };
    for text in ["", "hush", "{\"hush\"", "[]", "{}", "{\"keys\": \"hush\"}", "\"hush\""] {
        assert!(reason(&jwks(text)).contains("set: not a JSON Web Key Set (line "), "{text}");
    }
    assert!(reason(&jwks("{\"keys\": []}")).contains("no key that"));
    assert!(reason(&jwks("{\"keys\": [\"hush\", 1, {}]}")).contains("no key that"));
    let many = vec![jwk(EdDSA, json!({})); 65];
    assert!(reason(&set(&directory, &many)).contains("more than 64 keys"));
    let pem = |text: &str| Auth {
        key: Some(KeySource::PublicKey(directory.with("pem", text))),
        algorithms: EVERY.to_vec(),
        ..auth()
    };
    let pair = pairs().for_alg(ES256);
    let twice = pair.public_key_pem().repeat(2);
    let cut = pair.public_key_pem().replacen("MFkw", "MFkx", 1);
    for (text, part) in [
        ("hush", "not PEM"),
        ("-----BEGIN CERTIFICATE-----\nhush\n-----END CERTIFICATE-----\n", "a certificate"),
        (&pair.serialize_pem(), "a private key"),
        (&pairs().for_alg(RS256).serialize_pem(), "a private key"),
        (&twice, "one public key"),
        (&cut, "not a public key"),
        ("-----BEGIN PUBLIC KEY-----\nhush\n-----END PUBLIC KEY-----\n", "not a public key"),
        ("-----BEGIN RSA PUBLIC KEY-----\nMAA=\n-----END RSA PUBLIC KEY-----\n", "not a public key"),
        ("-----BEGIN SSH KEY-----\nhush\n-----END SSH KEY-----\n", "not a public key"),
    ] {
        let reason = reason(&pem(text));
        assert!(reason.contains("pem: ") && reason.contains(part), "{reason}");
    }
    let missing = Auth { key: Some(KeySource::PublicKey("/no/such/file".into())), ..auth() };
    assert!(reason(&missing).contains("/no/such/file: No such file"));
    assert!(Verifier::load(&Auth { key: None, ..auth() }).unwrap().is_none());
}

#[test]
fn nothing_prints_keys_or_tokens() {
    let verifier = verifier(&auth());
    assert!(!format!("{verifier:?}").contains("secret"));
    assert!(!format!("{:?}", auth()).contains(SECRET));
    let fault = verifier.verify("very.secret.token", at(NOW)).unwrap_err();
    assert_eq!((fault.to_string(), format!("{fault:?}")), ("token invalid".into(), "Invalid".into()));
    assert_eq!(TokenFault::Expired.to_string(), "token expired");
}

/// What a test's thread logs.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn keys_left_out_are_named_in_the_log() {
    let directory = Directory::new();
    let secret = URL_SAFE_NO_PAD.encode(SECRET);
    let odd = json!({"kty": "oct", "k": secret, "kid": "odd"});
    let auth = set(&directory, &[odd, jwk(EdDSA, json!({"kid": "good"}))]);
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_writer(move || writer.clone()).with_ansi(false).finish();
    tracing::subscriber::with_default(subscriber, || {
        let verifier = verifier(&auth);
        assert_eq!(outcome(&verifier, &token(EdDSA, Some("good"))), Ok(()));
        assert_eq!(outcome(&verifier, &token(EdDSA, Some("odd"))), UNKNOWN);
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("kid=\"odd\"") && text.contains("a shared secret"), "{text}");
    assert_eq!(text.lines().count(), 1, "tokens are not logged: {text}");
    assert!(!text.contains(&secret), "{text}");
}
