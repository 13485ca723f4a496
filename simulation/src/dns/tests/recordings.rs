//! The answers of the recorded CoreDNS.

use std::time::Duration;

use hickory_proto::{
    op::{Message, ResponseCode},
    rr::{RData, Record, RecordType},
};
use tokio::time::Instant;

use super::{
    super::{CoreDns, CoreDnsSettings, NameServer, Transport},
    setup::{added, microservice, service, slice},
};
use crate::kubernetes::Change;

/// One recorded question.
struct Recorded {
    case: String,
    question: String,
    transport: Transport,
    query: Vec<u8>,
    answer: Option<Vec<u8>>,
}

fn recorded() -> Vec<Recorded> {
    let text = include_str!("../../../recordings/dns.jsonl");
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
    };
    let parse = |line: &str| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| value[key].as_str().unwrap().to_owned();
        Recorded {
            case: text("case"),
            question: text("question"),
            transport: if value["transport"] == "tcp" { Transport::Tcp } else { Transport::Udp },
            query: hex(&text("query")),
            answer: value["answer"].as_str().map(hex),
        }
    };
    text.lines().map(parse).collect()
}

/// The Services and slices of a case, in the order of the recording.
fn objects(case: &str) -> Vec<Change> {
    let pods = |pods: &[(u32, &str, bool)]| vec![service(), microservice(), added(slice("a", pods))];
    let three = |last: &str, ready| pods(&[(0, "10.78.1.11", true), (1, "10.78.1.13", true), (2, last, ready)]);
    let both = |ready| {
        let mut changes = pods(&[(0, "10.78.1.11", true), (1, "10.78.1.12", true), (2, "10.78.1.13", ready)]);
        let v6 = [(0, "fd78::11", true), (1, "fd78::12", true), (2, "fd78::13", ready)];
        changes.push(added(slice("b", &v6)));
        changes
    };
    match case {
        "no such service" => Vec::new(),
        "service with no ready Pod" => pods(&[(0, "10.78.1.11", false)]),
        "three ready" | "three ready, no EDNS" | "cluster IP service" => three("10.78.1.12", true),
        "one terminating but serving" => three("10.78.1.12", false),
        "it is back with another address" => three("10.78.1.16", true),
        "one not ready" | "publishNotReadyAddresses, one terminating" => three("10.78.1.16", case.contains("publish")),
        "API server away" => three("10.78.1.18", true),
        "eight ready" | "eight ready, no EDNS" => {
            let mut changes = three("10.78.1.18", true);
            let more = [(6, "10.78.1.21", true), (7, "10.78.1.23", true), (5, "10.78.1.20", true)];
            changes.push(added(slice("b", &more)));
            changes.push(added(slice("c", &[(4, "10.78.1.19", true), (3, "10.78.1.22", true)])));
            changes
        }
        "dual stack, three ready" => both(true),
        "dual stack, one terminating" => both(false),
        other => panic!("unknown case {other}"),
    }
}

/// Returns the records of a section in a comparable order: CoreDNS shuffles addresses and slices.
fn sorted(records: &[Record]) -> Vec<String> {
    let mut records: Vec<String> = records.iter().map(Record::to_string).collect();
    records.sort();
    records
}

/// Compares an answer with the recorded one: header, length and records, and every byte where the order is fixed.
fn compare(recorded: &Recorded, answer: &[u8]) {
    let context = format!("{}: {} {:?}", recorded.case, recorded.question, recorded.transport);
    let expected = recorded.answer.as_ref().unwrap();
    let (left, right) = (Message::from_vec(answer).unwrap(), Message::from_vec(expected).unwrap());
    assert_eq!(answer[..12], expected[..12], "header of {context}:\n{left}\nrecorded:\n{right}");
    assert_eq!(answer.len(), expected.len(), "length of {context}");
    if !left.metadata.truncation {
        assert_eq!(sorted(&left.answers), sorted(&right.answers), "answers of {context}");
        assert_eq!(sorted(&left.additionals), sorted(&right.additionals), "additional records of {context}");
    }
    assert_eq!(sorted(&left.authorities), sorted(&right.authorities), "authorities of {context}");
    if left.answers.len() + left.additionals.len() < 2 {
        assert_eq!(answer, expected, "bytes of {context}");
    }
}

fn serial(answer: &[u8]) -> Option<u32> {
    let message = Message::from_vec(answer).unwrap();
    message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.serial),
        _ => None,
    })
}

#[test]
fn a_running_coredns_answers_as_recorded() {
    let mut compared = 0;
    for recorded in recorded() {
        // The answer of the first question of all was lost on the network.
        let Some(expected) = &recorded.answer else { continue };
        if recorded.case.contains("without an API server") || recorded.case == "both are back" {
            continue;
        }
        let start = Instant::now();
        let settings = CoreDnsSettings { serial: serial(expected).unwrap_or(0), ..CoreDnsSettings::kubeadm(start) };
        for seed in 0..8 {
            let random = fastrand::Rng::with_seed(seed);
            let mut server = CoreDns::start(start, settings.clone(), objects(&recorded.case), true, random);
            let mut now = start + Duration::from_secs(1);
            if recorded.case == "API server away" {
                server.set_available(now, false);
                now += Duration::from_secs(25);
            }
            let answers = server.answer(now, &recorded.query, recorded.transport);
            assert_eq!(answers.len(), 1);
            compare(&recorded, &answers[0].1);
        }
        compared += 1;
    }
    assert_eq!(compared, 77);
}

#[test]
fn a_coredns_without_an_api_server_is_silent_for_5_s_and_then_fails_as_recorded() {
    let start = Instant::now();
    let settings = CoreDnsSettings::kubeadm(start);
    let random = fastrand::Rng::with_seed(1);
    let mut server = CoreDns::start(start, settings, objects("three ready"), false, random);
    let all = recorded();
    let of = |case: &str| all.iter().filter(|recorded| recorded.case.contains(case)).collect::<Vec<_>>();
    // Each question that is not answered takes 3 s.
    let mut now = start + Duration::from_secs(1);
    for recorded in of("1 s later") {
        let answers = server.answer(now, &recorded.query, recorded.transport);
        match &recorded.answer {
            None => {
                assert_eq!(answers, [], "{}", recorded.question);
                now += Duration::from_secs(3);
            }
            Some(_) => compare(recorded, &answers[0].1),
        }
    }
    for recorded in of("4 s later").into_iter().chain(of("8 s later")).chain(of("both are back")) {
        if recorded.case == "both are back" {
            server.set_available(now, true);
        }
        compare(recorded, &server.answer(now, &recorded.query, recorded.transport)[0].1);
    }
}

#[test]
fn the_names_above_and_outside_of_the_services_are_answered() {
    let (mut server, now) = super::setup::running(CoreDnsSettings::kubeadm(Instant::now()), &[]);
    for (name, code) in [
        ("cluster.local.", ResponseCode::NoError),
        ("svc.cluster.local.", ResponseCode::NoError),
        ("k8s-training.svc.cluster.local.", ResponseCode::NoError),
        ("other.svc.cluster.local.", ResponseCode::NXDomain),
        ("a.b.c.postgresql-svc.k8s-training.svc.cluster.local.", ResponseCode::NXDomain),
        ("10-78-1-11.k8s-training.pod.cluster.local.", ResponseCode::NXDomain),
        ("example.com.", ResponseCode::Refused),
    ] {
        let answer = super::setup::ask(&mut server, now, name, RecordType::A);
        assert_eq!((answer.metadata.response_code, answer.answers.len()), (code, 0), "{name}");
        assert_eq!(answer.authorities.len(), usize::from(code != ResponseCode::Refused), "{name}");
    }
}
