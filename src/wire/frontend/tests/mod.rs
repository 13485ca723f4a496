use proptest::prelude::*;

use super::*;
use crate::wire::type_lookup::TEXTS;

fn message(kind: u8, body: usize) -> Vec<u8> {
    let mut message = vec![kind];
    message.extend(u32::try_from(body + 4).unwrap().to_be_bytes());
    message.resize(message.len() + body, b'S');
    message
}

proptest! {
    #[test]
    fn counts_the_same_requests_however_the_writes_are_split(
        messages in prop::collection::vec((prop::sample::select(&b"QSFPBEDCHXdcfp"[..]), 0..40usize), 0..30),
        cuts in prop::collection::vec(1..50usize, 1..200),
    ) {
        let mut bytes = message(0, 10).split_off(1); // the startup message
        let (mut expected, mut parsed, mut executed) = (1, 0, 0);
        for (kind, body) in messages {
            expected += u32::from(b"QSF".contains(&kind));
            parsed += u64::from(kind == b'P');
            executed += u32::from(b"QEF".contains(&kind));
            bytes.extend(message(kind, body));
        }
        let mut frontend = FrontendReader::new(false);
        let (mut rest, mut counted) = (&bytes[..], 0);
        for cut in cuts.into_iter().cycle() {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            counted += frontend.feed(head);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!((counted, frontend.parsed(), frontend.executed()), (expected, parsed, executed));
    }

    #[test]
    fn finds_the_same_kinds_of_requests_however_the_writes_are_split(
        cuts in prop::collection::vec(1..50usize, 1..200),
        text in prop::sample::select(&TEXTS[..]),
    ) {
        let with_body = |kind, body: &[u8]| {
            let mut message = message(kind, body.len());
            message.truncate(5);
            message.extend(body);
            message
        };
        let prepare = |name: &str, text: &str| with_body(b'P', format!("{name}\0{text}\0\0\0").as_bytes());
        let bind = |name: &str| with_body(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
        let [sync, execute, query] = [message(b'S', 0), message(b'E', 5), message(b'Q', 9)];
        let requests = [
            (RequestKind::Ordinary, vec![message(0, 10).split_off(1)]), // the startup message
            (RequestKind::Ordinary, vec![prepare("s1", text), sync.clone()]),
            (RequestKind::Ordinary, vec![prepare("s2", &format!("{text} AND f()")), sync.clone()]),
            (RequestKind::TypeLookup, vec![bind("s1"), execute.clone(), sync.clone()]),
            (RequestKind::Ordinary, vec![bind("s2"), execute.clone(), sync.clone()]),
            (RequestKind::Ordinary, vec![bind("s1"), bind("s2"), execute.clone(), sync.clone()]),
            (RequestKind::Ordinary, vec![query]),
            (RequestKind::CopyEnd, vec![message(b'd', 30), message(b'c', 0), sync.clone()]),
            (RequestKind::Sync, vec![sync.clone()]),
            (RequestKind::Ordinary, vec![execute, sync]),
        ];
        let bytes = requests.iter().flat_map(|(_, messages)| messages.concat()).collect::<Vec<_>>();
        let (mut frontend, mut rest) = (FrontendReader::new(false), &bytes[..]);
        for cut in cuts.into_iter().cycle() {
            let (head, tail) = rest.split_at(cut.min(rest.len()));
            frontend.feed(head);
            rest = tail;
            if rest.is_empty() {
                break;
            }
        }
        for (expected, _) in requests {
            prop_assert_eq!(frontend.complete(), Some(expected));
        }
        prop_assert_eq!((frontend.complete(), frontend.outstanding()), (None, 0));
        prop_assert!(!frontend.awaits_copy_end());
        prop_assert_eq!(frontend.executed(), 4);
    }

    #[test]
    fn does_not_panic_on_arbitrary_bytes(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..20),
    ) {
        let mut frontend = FrontendReader::new(false);
        for chunk in chunks {
            frontend.feed(&chunk);
        }
    }
}

mod session {
    use super::*;
    use crate::wire::session_statements::MAX_NAMES;

    fn with_body(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
        [&[kind], &length[..], body].concat()
    }

    fn query(text: &str) -> Vec<u8> {
        with_body(b'Q', format!("{text}\0").as_bytes())
    }

    /// The messages with which the driver prepares a statement.
    fn prepare(name: &str, text: &str) -> Vec<u8> {
        [with_body(b'P', format!("{name}\0{text}\0\0\0").as_bytes()), with_body(b'S', b"")].concat()
    }

    /// The messages with which the driver executes a prepared statement.
    fn execute(name: &str) -> Vec<u8> {
        let bind = with_body(b'B', format!("\0{name}\0\0\0\0\0\0\0").as_bytes());
        [bind, with_body(b'E', b"\0\0\0\0\0"), with_body(b'S', b"")].concat()
    }

    fn close(name: &str) -> Vec<u8> {
        [with_body(b'C', format!("S{name}\0").as_bytes()), with_body(b'S', b"")].concat()
    }

    /// Returns a parser after the startup, which finds changes of session state.
    fn frontend() -> FrontendReader {
        let mut frontend = FrontendReader::new(true);
        frontend.feed(&message(0, 10)[1..]);
        frontend.complete();
        frontend
    }

    const SET_CONFIG: &str = "SELECT set_config('my.own', $1, false)";

    #[test]
    fn finds_statements_that_may_change_the_session_at_each_execution() {
        // Each step: the messages, and whether they may change the session. The state of the parser continues.
        let steps = [
            (query("SELECT 1"), false),
            (query("SELECT 1; CREATE TEMP TABLE a ()"), true),
            (query("SELECT 1"), false),
            (prepare("s1", SET_CONFIG), true),
            (prepare("s2", "SELECT 2"), false),
            (execute("s2"), false),
            (execute("s1"), true),
            (execute("s2"), false),
            (execute("s1"), true),
            // The server refuses a second statement of the same name.
            (prepare("s1", "SELECT 1"), false),
            (execute("s1"), true),
            (close("s2"), false),
            (execute("s1"), true),
            (close("s1"), false),
            (execute("s1"), false),
            // The unnamed statement is replaced by the next one.
            (prepare("", SET_CONFIG), true),
            (execute(""), true),
            (prepare("", "SELECT 1"), false),
            (execute(""), false),
            (with_body(b'F', b"\0\0\0\x01"), true),
            // Not a valid Bind.
            (prepare("s3", SET_CONFIG), true),
            (with_body(b'B', b"portal"), true),
        ];
        let lengths: Vec<_> = steps.iter().map(|(messages, _)| messages.len()).collect();
        for split in 0..lengths.into_iter().max().unwrap() {
            let mut frontend = frontend();
            for (number, (messages, expected)) in steps.iter().enumerate() {
                let (first, second) = messages.split_at(split.min(messages.len()));
                frontend.feed(first);
                frontend.feed(second);
                assert_eq!(frontend.take_session_change().is_some(), *expected, "step {number}, split at {split}");
                assert!(frontend.take_session_change().is_none());
            }
        }
    }

    #[test]
    fn reports_that_later_executions_cannot_be_recognized_if_there_are_too_many_names() {
        let mut frontend = frontend();
        for number in 0..MAX_NAMES {
            frontend.feed(&prepare(&format!("s{number}"), SET_CONFIG));
            assert_eq!(frontend.take_session_change(), Some(SessionChange::Text));
        }
        frontend.feed(&execute("s99"));
        assert_eq!(frontend.take_session_change(), Some(SessionChange::Text));
        // The unnamed statement and other statements are recognized.
        for messages in [prepare("", "SELECT 1"), execute(""), prepare("harmless", "SELECT 1"), execute("harmless")] {
            frontend.feed(&messages);
            assert_eq!(frontend.take_session_change(), None);
        }
        frontend.feed(&prepare("next", SET_CONFIG));
        assert_eq!(frontend.take_session_change(), Some(SessionChange::Unknown));
    }

    #[test]
    fn forgets_the_statements_that_the_server_has_refused() {
        let mut frontend = frontend();
        for number in 0..2 * MAX_NAMES {
            frontend.feed(&prepare(&format!("s{number}"), SET_CONFIG));
            assert_eq!(frontend.take_session_change(), Some(SessionChange::Text));
            frontend.complete();
            frontend.forget_refused_statements();
        }
        // Pipelined requests: only the second is refused.
        frontend.feed(&[prepare("a", SET_CONFIG), prepare("b", SET_CONFIG), prepare("c", SET_CONFIG)].concat());
        frontend.complete();
        frontend.complete();
        frontend.forget_refused_statements();
        frontend.complete();
        // The server refuses the second statement of a name, and keeps the first.
        frontend.feed(&prepare("a", SET_CONFIG));
        frontend.complete();
        frontend.forget_refused_statements();
        frontend.take_session_change();
        for (name, expected) in [("a", true), ("b", false), ("c", true), ("s1", false)] {
            frontend.feed(&execute(name));
            assert_eq!(frontend.take_session_change().is_some(), expected, "{name}");
        }
    }

    #[test]
    fn recognizes_blocks_however_the_writes_are_split() {
        for messages in [query("/**/CALL p()"), prepare("s1", " do $$BEGIN COMMIT; END$$"), query("Do 'x'")] {
            for split in 0..messages.len() {
                let mut frontend = frontend();
                frontend.feed(&messages[..split]);
                frontend.feed(&messages[split..]);
                assert_eq!(frontend.take_session_change(), Some(SessionChange::Text), "split at {split}");
            }
        }
    }

    #[test]
    fn distinguishes_local_sets() {
        let mut frontend = frontend();
        let steps = [
            (query("SET LOCAL work_mem = '1MB'"), true),
            (query("SET work_mem = '1MB'"), false),
            (query("SET TRANSACTION READ ONLY;"), true),
            (query("SET LOCAL work_mem = '1MB'; SET work_mem = '2MB'"), false),
            (query("BEGIN; SET LOCAL work_mem = '1MB'; SET LOCAL lock_timeout = 0"), true),
            (prepare("s1", "SET LOCAL work_mem = '1MB'"), false),
            (prepare("s2", "SET work_mem = '1MB'"), false),
            (execute("s1"), true),
            (execute("s2"), false),
            (execute("s1"), true),
            ([execute("s1")[..execute("s1").len() - 5].to_vec(), execute("s2")].concat(), false),
            ([execute("s2")[..execute("s2").len() - 5].to_vec(), execute("s1")].concat(), false),
            // The server may have refused the second statement, or not.
            (prepare("s1", "SET work_mem = '1MB'"), false),
            (execute("s1"), false),
        ];
        for (number, (messages, local)) in steps.iter().enumerate() {
            frontend.feed(messages);
            assert_eq!(frontend.awaits_local_set(), *local, "step {number}");
            let kind = frontend.complete();
            assert_eq!(kind == Some(RequestKind::LocalSet), *local, "step {number}");
            assert!(frontend.take_session_change().is_none() && frontend.outstanding() == 0);
        }
        // Pipelined requests: only the oldest counts.
        frontend.feed(&query("SET work_mem = '1MB'"));
        frontend.feed(&query("SET LOCAL work_mem = '1MB'"));
        assert!(!frontend.awaits_local_set());
        frontend.complete();
        assert!(frontend.awaits_local_set());
    }

    #[test]
    fn ignores_the_texts_unless_changes_are_tracked() {
        let mut frontend = FrontendReader::new(false);
        frontend.feed(&message(0, 10)[1..]);
        frontend.feed(&[query("CREATE TEMP TABLE a ()"), query("SET LOCAL a = 1")].concat());
        assert!(frontend.take_session_change().is_none() && !frontend.awaits_local_set());
    }
}
