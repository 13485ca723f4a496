//! Faults of name servers.

use std::time::Duration;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::RecordType,
};
use tokio::time::Instant;

use super::{
    super::{Answers, CoreDns, CoreDnsSettings, Fault, Faulty, NameServer, Rule, Transport},
    setup::{SERVICE, addresses, ask, question, running},
};

const ONE: &[(u32, &str, bool)] = &[(0, "10.78.1.11", true)];

fn faulty(rules: Vec<Rule>) -> (Faulty<CoreDns>, Instant) {
    let (server, now) = running(CoreDnsSettings::kubeadm(Instant::now()), ONE);
    let mut faulty = Faulty::new(server, fastrand::Rng::with_seed(9));
    faulty.set_rules(rules);
    (faulty, now)
}

/// Returns the answers to a question for addresses, with one fault.
fn answers(fault: Fault, transport: Transport) -> Answers {
    let (mut server, now) = faulty(vec![Rule::every(fault)]);
    server.answer(now, &question(SERVICE, RecordType::A), transport)
}

#[test]
fn made_up_answers_have_their_response_code() {
    for (fault, code) in [
        (Fault::NxDomain, ResponseCode::NXDomain),
        (Fault::Refused, ResponseCode::Refused),
        (Fault::ServFail, ResponseCode::ServFail),
    ] {
        let (mut server, now) = faulty(vec![Rule::every(fault)]);
        let answer = ask(&mut server, now, SERVICE, RecordType::A);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0));
        assert_eq!(answer.authorities.len(), usize::from(code == ResponseCode::NXDomain), "{code}");
    }
}

#[test]
fn a_truncated_answer_is_complete_over_tcp() {
    let message = |transport| Message::from_vec(&answers(Fault::Truncated, transport)[0].1).unwrap();
    let (udp, tcp) = (message(Transport::Udp), message(Transport::Tcp));
    assert_eq!((udp.metadata.truncation, udp.answers.len()), (true, 0));
    assert_eq!((tcp.metadata.truncation, tcp.answers.len()), (false, 1));
}

#[test]
fn answers_are_late_missing_doubled_or_forged() {
    let second = Duration::from_secs(1);
    assert_eq!(answers(Fault::Silent, Transport::Udp), []);
    assert!(answers(Fault::Late(second..=second), Transport::Udp)[0].0 > second);
    let doubled = answers(Fault::Duplicated, Transport::Udp);
    assert!(doubled.len() == 2 && doubled[0] == doubled[1]);
    let id = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]);
    let ids = |fault| answers(fault, Transport::Udp).iter().map(|(_, bytes)| id(bytes)).collect::<Vec<_>>();
    assert!(matches!(ids(Fault::WrongId)[..], [wrong] if wrong != 0x1234));
    assert!(matches!(ids(Fault::Spoofed)[..], [wrong, 0x1234] if wrong != 0x1234));
}

#[test]
fn a_malformed_answer_differs_from_the_right_one() {
    let (mut server, now) = faulty(vec![]);
    let query = question(SERVICE, RecordType::A);
    let right = server.answer(now, &query, Transport::Udp)[0].1.clone();
    server.set_rules(vec![Rule::every(Fault::Malformed)]);
    let wrong: Vec<_> = (0..100).map(|_| server.answer(now, &query, Transport::Udp)[0].1.clone()).collect();
    assert!(wrong.iter().all(|bytes| *bytes != right));
    assert!(wrong.iter().any(|bytes| bytes.len() < right.len()), "some are cut off");
    assert!(wrong.iter().any(|bytes| bytes.len() == right.len()), "some have another byte");
}

#[test]
fn a_rule_hits_some_questions_of_one_type() {
    let rule = Rule { fault: Fault::Refused, per_mille: 300, record_type: Some(RecordType::A) };
    let (mut server, now) = faulty(vec![rule]);
    let refused = (0..1000).filter(|_| addresses_are_refused(&mut server, now)).count();
    assert!((250..350).contains(&refused), "{refused}");
    let aaaa = ask(&mut server, now, SERVICE, RecordType::AAAA);
    assert_eq!(aaaa.metadata.response_code, ResponseCode::NoError);
    server.set_rules(vec![]);
    assert_eq!(addresses(&mut server, now).1.len(), 1);
    assert!(server.server().is_listening(now));
}

fn addresses_are_refused(server: &mut Faulty<CoreDns>, now: Instant) -> bool {
    ask(server, now, SERVICE, RecordType::A).metadata.response_code == ResponseCode::Refused
}

#[test]
fn what_is_not_a_question_is_answered_by_its_kind() {
    let (mut server, now) = faulty(vec![]);
    let mut ask = |bytes: &[u8]| server.answer(now, bytes, Transport::Udp);
    assert_eq!(ask(&[0; 11]), [], "no header");
    let mut response = question(SERVICE, RecordType::A);
    response[2] |= 0x80;
    assert_eq!(ask(&response), [], "a response");
    let code = |answers: &Answers| Message::from_vec(&answers[0].1).unwrap().metadata.response_code;
    let query = question(SERVICE, RecordType::A);
    assert_eq!(code(&ask(&query[..30])), ResponseCode::FormErr, "cut off");
    let mut update = query.clone();
    update[2] |= 5 << 3;
    assert_eq!(code(&ask(&update)), ResponseCode::NotImp, "an update");
}
