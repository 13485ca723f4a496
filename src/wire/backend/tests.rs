use proptest::prelude::*;

use super::*;
use crate::wire::message_limits::{MAX_PARAMETERS, MAX_RESPONSE};

const STARTING: ConnectionState = ConnectionState { in_service: false, awaiting_response: true };
const IN_USE: ConnectionState = ConnectionState { in_service: true, awaiting_response: true };
const IDLE: ConnectionState = ConnectionState { in_service: true, awaiting_response: false };

fn read_all(
    reader: &mut BackendReader,
    mut bytes: &[u8],
    state: ConnectionState,
) -> Result<Vec<BackendMessage>, Violation> {
    let mut messages = Vec::new();
    while let Some(message) = reader.next(&mut bytes, state)? {
        messages.push(message);
    }
    Ok(messages)
}

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    message.extend(body);
    message
}

fn conversation() -> (Vec<u8>, Vec<BackendMessage>) {
    let mut bytes = Vec::new();
    bytes.extend(message(b'R', &0u32.to_be_bytes()));
    bytes.extend(message(b'S', b"in_hot_standby\0on\0"));
    bytes.extend(message(b'S', b"server_version\x0015.18\0"));
    bytes.extend(message(b'S', b"default_transaction_read_only\0off\0"));
    bytes.extend(message(b'K', b"\0\0\x01\x02secret key"));
    bytes.extend(message(b'Z', b"I"));
    bytes.extend(message(b'1', b""));
    bytes.extend(message(b'C', b"DEALLOCATE\0"));
    bytes.extend(message(b'C', b"DISCARD ALL\0"));
    bytes.extend(message(b'C', b"DEALLOCATE ALL\0"));
    bytes.extend(message(b'D', &[b'Z'; 3000]));
    bytes.extend(message(b'E', b"SERROR\0VERROR\0C25006\0Mcannot execute INSERT\0\0"));
    bytes.extend(message(b'Z', b"E"));
    bytes.extend(message(b'G', b"\0\0\0"));
    bytes.extend(message(b'E', b"SFATAL\0C08P01\0Mquery_wait_timeout\0\0"));
    bytes.extend(message(b'E', b"SFATAL\0VERROR\0C42501\0Mdenied\0\0"));
    let mut fatal = b"SFATAL\0VFATAL\0C57P01\0M".to_vec();
    fatal.extend([b'x'; 500]);
    fatal.extend(b"\0\0");
    bytes.extend(message(b'E', &fatal));
    let messages = vec![
        BackendMessage::Authentication(AuthRequest::Accepted),
        BackendMessage::HotStandby(true),
        BackendMessage::ReadOnly(false),
        BackendMessage::ProcessId(0x102),
        BackendMessage::Ready(b'I'),
        BackendMessage::UndoneSession,
        BackendMessage::Deallocated,
        BackendMessage::Deallocated,
        BackendMessage::Error(*b"25006"),
        BackendMessage::Ready(b'E'),
        BackendMessage::CopyIn,
        BackendMessage::PoolerFatal(*b"08P01"),
        BackendMessage::Error(*b"42501"),
        BackendMessage::Fatal(*b"57P01"),
    ];
    (bytes, messages)
}

proptest! {
    #[test]
    fn parses_the_same_messages_however_the_reads_are_split(cuts in prop::collection::vec(1..600usize, 1..300)) {
        let (bytes, expected) = conversation();
        let mut reader = BackendReader::new();
        let (mut rest, mut messages) = (&bytes[..], Vec::new());
        for cut in cuts.into_iter().cycle() {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            messages.extend(read_all(&mut reader, head, IN_USE).unwrap());
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(messages, expected);
    }

    #[test]
    fn does_not_panic_on_arbitrary_bytes(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20),
    ) {
        let mut reader = BackendReader::new();
        for chunk in chunks {
            if read_all(&mut reader, &chunk, IN_USE).is_err() {
                break;
            }
        }
    }
}

#[test]
fn errors_name_the_exceeded_limit() {
    let header = |kind, length: u32| [&[kind][..], &length.to_be_bytes()].concat();
    let sasl = |iterations: &str| message(b'R', format!("\0\0\0\x0br=x,s=eA==,i={iterations}").as_bytes());
    for (bytes, state, expected) in [
        (header(b'D', 1 << 30), IN_USE, None),
        (header(b'D', (1 << 30) + 1), IN_USE, Some("message `D` of 1073741825 bytes, limit 1073741824")),
        (header(b'D', 1 << 20), IDLE, Some("message `D` of 1048576 bytes, limit 30000")),
        (header(b'D', 1 << 20), STARTING, Some("message `D` of 1048576 bytes, limit 30000")),
        (header(b'C', 1 << 20), IN_USE, Some("message `C` of 1048576 bytes, limit 30000")),
        (header(0, u32::MAX), IN_USE, Some("message `\\x00` of 4294967295 bytes, limit 30000")),
        (header(b't', 4 + 2 + 4 * 65_535), IN_USE, None),
        (header(b'R', 2_001), STARTING, Some("message `R` of 2001 bytes, limit 2000")),
        (sasl("4096"), STARTING, None),
        (sasl("100000"), STARTING, None),
        (sasl("100001"), STARTING, Some("100001 SCRAM iterations, limit 100000")),
        (sasl("99999999999999999999"), STARTING, Some("99999999999999999999 SCRAM iterations")),
        (message(b'S', &[b'x'; 200]), STARTING, Some("name of a parameter longer than 127 bytes")),
    ] {
        let result = read_all(&mut BackendReader::new(), &bytes, state);
        match expected {
            None => drop(result.unwrap()),
            Some(expected) => {
                let violation = result.unwrap_err().to_string();
                assert!(violation.contains(expected), "expected {expected}, got {violation}");
            }
        }
    }
}

#[test]
fn limits_the_response_length_only_before_service() {
    let row = message(b'D', &[0; 1000]);
    let (mut starting, mut in_use) = (BackendReader::new(), BackendReader::new());
    let mut rejected_at = None;
    for n in 1..1_000 {
        assert!(read_all(&mut in_use, &row, IN_USE).is_ok());
        if read_all(&mut starting, &row, STARTING).is_err() {
            rejected_at = rejected_at.or(Some(n * row.len()));
        }
    }
    let rejected_at = rejected_at.unwrap();
    assert!((MAX_RESPONSE..MAX_RESPONSE + 2 * row.len()).contains(&rejected_at), "{rejected_at}");
}

#[test]
fn limits_the_number_of_parameters_but_not_of_their_changes() {
    let mut reader = BackendReader::new();
    let mut report = |name: &str| {
        let status = message(b'S', format!("{name}\0value\0").as_bytes());
        read_all(&mut reader, &status, IN_USE)
    };
    for _ in 0..10_000 {
        report("application_name").unwrap();
    }
    let accepted = (0..1_000).take_while(|n| report(&format!("p{n}")).is_ok()).count();
    assert_eq!(accepted, MAX_PARAMETERS - 1);
}
