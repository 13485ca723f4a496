//! Tests the error messages for invalid environment variables.

use tokio::time::timeout;

use crate::service::{LIMIT, command};

#[tokio::test]
async fn reports_invalid_environment_variables() {
    let valid = "postgres://user:hunter2@postgresql-svc.test/db";
    for (variables, expected) in [
        (vec![], "DATABASE_URL is not set"),
        (vec![("DATABASE_URL", "")], "DATABASE_URL is not set"),
        (vec![("DATABASE_URL", "mysql://user:hunter2@host/db")], "DATABASE_URL: connection URL: expected"),
        (vec![("DATABASE_URL", "postgres://user:hunter2@host/db?pool_syze=3")], "`pool_size`"),
        (vec![("DATABASE_URL", "postgres://user:hunter2@host/db?shared=1")], "expected on or off, got `1`"),
        (vec![("DATABASE_URL", "postgres://user:hun/ter2@host:0/db")], "DATABASE_URL: parameter `"),
        (vec![("DATABASE_URL", valid), ("LISTEN_ADDR", "nowhere")], "LISTEN_ADDR: `nowhere`"),
        (vec![("DATABASE_URL", valid), ("LISTEN_ADDR", "192.0.2.1:80")], "192.0.2.1:80"),
        (vec![("DATABASE_URL", valid), ("MAX_REQUESTS", "0")], "expected an integer from 1 to 4294967295, got `0`"),
        (vec![("DATABASE_URL", valid), ("MAX_REQUESTS", "many")], "MAX_REQUESTS: expected an integer from 1 to"),
        (vec![("DATABASE_URL", valid), ("RUST_LOG", "podpool=loud")], "RUST_LOG: "),
    ] {
        let output = timeout(LIMIT, command(&variables).output()).await.expect("the program exits in time");
        let output = output.expect("the program starts");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{variables:?}: {text}");
        assert!(text.starts_with("microservice: ") && text.contains(expected), "{variables:?}: {text}");
        assert!(!text.contains("hunter2") && !text.contains("ter2"), "the message contains the password: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
}
