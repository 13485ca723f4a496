//! Encodes the messages of a server.

use super::super::error::{Report, Severity};

/// Encoded messages that were not sent yet.
#[derive(Debug, Default)]
pub(in crate::postgres) struct Output(Vec<u8>);

impl Output {
    /// Takes the encoded messages.
    pub(in crate::postgres) fn take(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }

    pub(in crate::postgres) fn message(&mut self, kind: u8, body: &[u8]) {
        self.0.push(kind);
        // Messages of the simulated server are far shorter than 2 GiB.
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes());
        self.0.extend_from_slice(body);
    }

    /// Appends an authentication request.
    pub(in crate::postgres) fn authentication(&mut self, code: u32, data: &[u8]) {
        self.message(b'R', &[&code.to_be_bytes(), data].concat());
    }

    pub(in crate::postgres) fn parameter(&mut self, name: &str, value: &str) {
        self.message(b'S', &[name.as_bytes(), b"\0", value.as_bytes(), b"\0"].concat());
    }

    pub(in crate::postgres) fn key_data(&mut self, pid: i32, key: i32) {
        self.message(b'K', &[pid.to_be_bytes(), key.to_be_bytes()].concat());
    }

    /// Appends a ReadyForQuery with the status of the transaction: `I`, `T` or `E`.
    pub(in crate::postgres) fn ready(&mut self, status: u8) {
        self.message(b'Z', &[status]);
    }

    pub(in crate::postgres) fn complete(&mut self, tag: &str) {
        self.message(b'C', &[tag.as_bytes(), b"\0"].concat());
    }

    /// Appends an ErrorResponse, or a NoticeResponse for a warning.
    pub(in crate::postgres) fn report(&mut self, report: &Report) {
        let severity = report.severity.name();
        let mut body = Vec::new();
        let mut field = |kind: u8, text: &str| {
            body.push(kind);
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        };
        field(b'S', severity);
        field(b'V', severity);
        field(b'C', report.code);
        field(b'M', &report.message);
        if let Some(detail) = report.detail {
            field(b'D', detail);
        }
        body.push(0);
        self.message(if report.severity == Severity::Warning { b'N' } else { b'E' }, &body);
    }

    /// Appends a RowDescription of columns, each with name, type, length of the type and format.
    pub(in crate::postgres) fn row_description(&mut self, columns: &[(&str, u32, i16, i16)]) {
        let mut body = count(columns.len()).to_vec();
        for (name, oid, length, format) in columns {
            body.extend_from_slice(name.as_bytes());
            body.extend_from_slice(&[0; 7]);
            body.extend_from_slice(&oid.to_be_bytes());
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(&(-1_i32).to_be_bytes());
            body.extend_from_slice(&format.to_be_bytes());
        }
        self.message(b'T', &body);
    }

    pub(in crate::postgres) fn row(&mut self, values: &[Option<Vec<u8>>]) {
        let mut body = count(values.len()).to_vec();
        for value in values {
            let length = value.as_ref().map_or(-1, |value| i32::try_from(value.len()).unwrap_or(i32::MAX));
            body.extend_from_slice(&length.to_be_bytes());
            body.extend_from_slice(value.as_deref().unwrap_or_default());
        }
        self.message(b'D', &body);
    }

    pub(in crate::postgres) fn parameter_description(&mut self, oids: &[u32]) {
        let mut body = count(oids.len()).to_vec();
        oids.iter().for_each(|oid| body.extend_from_slice(&oid.to_be_bytes()));
        self.message(b't', &body);
    }
}

fn count(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}
