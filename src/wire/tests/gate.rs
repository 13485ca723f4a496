//! Tests which authentication requests the gate refuses, and the errors.

use super::super::{
    auth::{AuthError, AuthRefusal, AuthRequest, Authentication, Gate},
    classify::Class,
    dial_error::DialError,
    tls::TlsSession,
};
use crate::{
    config::{AuthMethod, RequireAuth, Security},
    error::Phase,
};

const VERIFIED: TlsSession = TlsSession { verified: true, version: None, cipher: None, fingerprint: None };
const UNVERIFIED: TlsSession = TlsSession { verified: false, ..VERIFIED };
const SASL: AuthRequest = AuthRequest::Sasl { scram: true };

fn gate(allowed: &str, tls: Option<&TlsSession>) -> Gate {
    let allowed = (!allowed.is_empty()).then(|| allowed.parse().unwrap());
    Gate::new(allowed, Security::Default, tls)
}

fn refusal(allowed: &str, tls: Option<&TlsSession>, requests: &[AuthRequest]) -> Option<AuthRefusal> {
    let mut gate = gate(allowed, tls);
    let refused = requests.iter().find_map(|request| gate.check(*request).err());
    assert_eq!(refused.is_none(), gate.accepted().get().is_some());
    refused.map(|error| error.refusal())
}

#[test]
fn the_default_sends_a_password_only_to_a_verified_server() {
    use AuthRequest::{Accepted, Md5, Password};
    for (tls, exposed) in [
        (None, Some(AuthRefusal::Unencrypted)),
        (Some(&UNVERIFIED), Some(AuthRefusal::Unverified)),
        (Some(&VERIFIED), None),
    ] {
        for allowed in ["", "!none", "!scram-sha-256"] {
            assert_eq!(refusal(allowed, tls, &[Password, Accepted]), exposed);
            assert_eq!(refusal(allowed, tls, &[Md5, Accepted]), exposed);
        }
        assert_eq!(refusal("password", tls, &[Password, Accepted]), None);
        assert_eq!(refusal("scram-sha-256,md5", tls, &[Md5, Accepted]), None);
        assert_eq!(refusal("", tls, &[SASL, AuthRequest::SaslFinal, Accepted]), None);
        assert_eq!(refusal("", tls, &[Accepted]), None);
    }
}

#[test]
fn refuses_methods_that_the_list_does_not_allow() {
    let all = [&[AuthRequest::Accepted][..], &[AuthRequest::Password], &[AuthRequest::Md5], &[SASL]];
    for (allowed, index) in [("none", 0), ("password", 1), ("md5", 2), ("scram-sha-256", 3)] {
        for (i, requests) in all.iter().enumerate() {
            let mut gate = gate(allowed, Some(&VERIFIED));
            let result = requests.iter().try_for_each(|request| gate.check(*request));
            let list = allowed.parse().unwrap();
            assert_eq!(
                result.map_err(|error| error.refusal()).err(),
                (i != index).then_some(AuthRefusal::NotAllowed(list))
            );
        }
    }
    assert!(matches!(refusal("!none", None, &[AuthRequest::Accepted]), Some(AuthRefusal::NotAllowed(_))));
    assert_eq!(refusal("none", None, &[AuthRequest::Accepted]), None);
}

#[test]
fn refuses_a_login_that_scram_has_not_proved() {
    for allowed in ["", "none,scram-sha-256", "scram-sha-256"] {
        let refused = refusal(allowed, Some(&VERIFIED), &[SASL, AuthRequest::Accepted]);
        assert_eq!(refused, Some(AuthRefusal::Unproven));
    }
}

#[test]
fn refuses_methods_that_are_not_implemented() {
    let oauth = AuthRequest::Sasl { scram: false };
    for request in [AuthRequest::Gss, AuthRequest::Sspi, oauth] {
        assert_eq!(refusal("", Some(&VERIFIED), &[request]), Some(AuthRefusal::NotImplemented));
    }
}

#[test]
fn records_the_method_and_the_channel_binding() {
    for (mechanism, bound) in [("SCRAM-SHA-256-PLUS", true), ("SCRAM-SHA-256", false)] {
        let mut gate = gate("", Some(&VERIFIED));
        let accepted = gate.accepted();
        gate.check(SASL).unwrap();
        assert!(gate.awaits_mechanism());
        gate.observe_response(format!("p\0\0\0\x20{mechanism}\0\0\0\0\x08p=tls-se").as_bytes());
        assert!(!gate.awaits_mechanism());
        for request in [AuthRequest::SaslFinal, AuthRequest::Accepted] {
            assert_eq!(accepted.get(), None);
            gate.check(request).unwrap();
        }
        assert_eq!(accepted.get(), Some(&Authentication { method: AuthMethod::ScramSha256, channel_binding: bound }));
    }
}

#[test]
fn parses_the_mechanisms_of_sasl() {
    let parse = |body: &[u8]| AuthRequest::parse(&[&10u32.to_be_bytes()[..], body].concat());
    assert_eq!(parse(b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"), Some(SASL));
    assert_eq!(parse(b"SCRAM-SHA-256\0\0"), Some(SASL));
    assert_eq!(parse(b"OAUTHBEARER\0\0"), Some(AuthRequest::Sasl { scram: false }));
    assert_eq!(AuthRequest::parse(b"\0\0"), None);
}

#[test]
fn the_remedy_keeps_scram_unless_it_is_forbidden() {
    for (allowed, request, remedy) in [
        ("", AuthRequest::Md5, "`require_auth=scram-sha-256,md5`"),
        ("", AuthRequest::Password, "`require_auth=scram-sha-256,password`"),
        ("!none", AuthRequest::Md5, "`require_auth=scram-sha-256,md5`"),
        ("!scram-sha-256", AuthRequest::Md5, "`require_auth=md5`"),
    ] {
        for tls in [None, Some(&UNVERIFIED)] {
            let error = gate(allowed, tls).check(request).unwrap_err().to_string();
            assert!(error.contains(remedy), "{error}");
        }
    }
}

#[test]
fn errors_name_the_parameter_that_forbids_the_method() {
    let strict = Some(RequireAuth::only([AuthMethod::ScramSha256]));
    let error = Gate::new(strict, Security::Strict, Some(&VERIFIED)).check(AuthRequest::Md5).unwrap_err();
    assert_eq!(error.refusal(), AuthRefusal::NotStrict);
    assert!(error.to_string().ends_with("but `security=strict` allows only `scram-sha-256`"), "{error}");
    let error = gate("scram-sha-256", Some(&VERIFIED)).check(AuthRequest::Md5).unwrap_err();
    assert!(error.to_string().ends_with("but `require_auth=scram-sha-256` does not allow it"), "{error}");
}

#[test]
fn a_refused_request_stays_the_cause_if_the_attempt_with_tls_fails() {
    let refused = || DialError::new(Phase::Startup, Class::Access, AuthError::unencrypted_password().into());
    let no_response = DialError {
        unresponsive: true,
        ..DialError::new(Phase::Startup, Class::NotReady, "no response within 2s".into())
    };
    let rejected =
        DialError { login_rejected: true, ..DialError::new(Phase::Startup, Class::Access, "SQLSTATE 28000".into()) };
    for second in [no_response, rejected] {
        let (text, login_rejected) = (second.chain(), second.login_rejected);
        let error = second.with_first_attempt(refused());
        assert!(error.has_refused_request() && !error.unresponsive, "{error:?}");
        assert_eq!((error.phase, error.class, error.login_rejected), (Phase::Startup, Class::Access, login_rejected));
        assert!(error.cause.to_string().contains(&text), "{}", error.cause);
    }
}
