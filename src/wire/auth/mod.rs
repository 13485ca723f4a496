//! Decides which authentication requests of a server the driver may answer.
//!
//! The driver answers every request that it implements, so a server, or an attacker who impersonates one, could ask for
//! the password in clear text. The [`tap`](super::tap) therefore passes each request to the [`Gate`] before the driver
//! receives it. If the gate refuses the request, the read of the driver fails, and the driver sends nothing.

mod error;
mod gate;

pub use error::{AuthError, AuthRefusal};
pub(super) use gate::{AuthRequest, Authentication, Gate};
