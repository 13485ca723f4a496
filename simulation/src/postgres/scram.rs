//! The server's side of SCRAM-SHA-256 (RFC 5802, RFC 7677), with one iteration, so that a login costs little.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};

use super::error::Report;

/// The name of the mechanism.
pub(super) const MECHANISM: &str = "SCRAM-SHA-256";
/// One iteration. The client accepts every number from 1 on.
const ITERATIONS: u32 = 1;

/// An exchange after the client's first message.
#[derive(Debug)]
pub(super) struct Exchange {
    nonce: String,
    client_first_bare: String,
    /// The header that the client must repeat.
    header: String,
    server_first: String,
    salted: [u8; 32],
}

impl Exchange {
    /// Answers the client's first message.
    pub(super) fn begin(message: &[u8], password: &str, random: &mut fastrand::Rng) -> Result<Self, Report> {
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let bare_at = text.match_indices(',').nth(1).ok_or_else(malformed)?.0 + 1;
        let (header, bare) = text.split_at(bare_at);
        let client_nonce = bare.split(',').find_map(|field| field.strip_prefix("r=")).ok_or_else(malformed)?;
        let nonce = format!("{client_nonce}{:016x}", random.u64(..));
        let salt: [u8; 16] = std::array::from_fn(|_| random.u8(..));
        let server_first = format!("r={nonce},s={},i={ITERATIONS}", STANDARD.encode(salt));
        // With one iteration, PBKDF2 is a single HMAC.
        let salted = sign(password.as_bytes(), &[&salt[..], &1_u32.to_be_bytes()].concat());
        let (client_first_bare, header) = (bare.to_owned(), header.to_owned());
        Ok(Self { nonce, client_first_bare, header, server_first, salted })
    }

    /// Returns the server's first message.
    pub(super) fn challenge(&self) -> &str {
        &self.server_first
    }

    /// Verifies the client's final message. Returns the server's final message, or `None` if the password is wrong.
    pub(super) fn finish(&self, message: &[u8]) -> Result<Option<String>, Report> {
        let text = std::str::from_utf8(message).map_err(|_| malformed())?;
        let (without_proof, proof) = text.rsplit_once(",p=").ok_or_else(malformed)?;
        let expected = format!("c={},r={}", STANDARD.encode(&self.header), self.nonce);
        if without_proof != expected {
            return Err(malformed());
        }
        let proof: [u8; 32] =
            STANDARD.decode(proof).ok().and_then(|proof| proof.try_into().ok()).ok_or_else(malformed)?;
        let exchange = format!("{},{},{without_proof}", self.client_first_bare, self.server_first);
        let client_key = sign(&self.salted, b"Client Key");
        let signature = sign(&Sha256::digest(client_key), exchange.as_bytes());
        let matches = (0..32).all(|i| proof[i] == client_key[i] ^ signature[i]);
        let server_key = sign(&self.salted, b"Server Key");
        Ok(matches.then(|| format!("v={}", STANDARD.encode(sign(&server_key, exchange.as_bytes())))))
    }
}

fn malformed() -> Report {
    Report::protocol("malformed SCRAM message")
}

fn sign(key: &[u8], message: &[u8]) -> [u8; 32] {
    // HMAC accepts keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else {
        return [0; 32];
    };
    mac.update(message);
    mac.finalize().into_bytes().into()
}
