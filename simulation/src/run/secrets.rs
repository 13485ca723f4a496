//! The passwords and the certificates of the servers, and the faults that change them. These faults may overlap.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
};

use tokio::time::{Instant, sleep_until};

use super::{
    Simulation,
    client::{self, PASSWORD, PASSWORD_FILE},
};
use crate::{
    adversary::{Fault, Host},
    postgres::{Authentication, Certificate, User},
};

/// The password of every user after a rotation.
const ROTATED: &str = "battery staple";
/// A password that no client has.
const OTHER: &str = "another one";

/// The secrets that are in use.
pub(super) struct Secrets {
    /// The password that the servers accept.
    accepted: Cell<&'static str>,
    /// The password in the files of the clients.
    in_files: Cell<&'static str>,
    /// The Pods whose servers reject the password, with the number of faults that cause it.
    rejecting: RefCell<BTreeMap<u32, u32>>,
    /// The Pods whose certificate has expired, with the number of faults that cause it.
    expired: RefCell<BTreeMap<u32, u32>>,
    /// The Pods whose certificate was renewed.
    renewed: RefCell<BTreeSet<u32>>,
}

impl Secrets {
    /// Returns the secrets at the start.
    pub(super) fn new() -> Self {
        Self {
            accepted: Cell::new(PASSWORD),
            in_files: Cell::new(PASSWORD),
            rejecting: RefCell::default(),
            expired: RefCell::default(),
            renewed: RefCell::default(),
        }
    }
}

/// Returns the authentication of the users of all clients with this password.
pub(super) fn authentication(clients: u32, password: &str) -> Authentication {
    let user = |number| (client::name(number), User { password: password.to_owned(), ..User::default() });
    Authentication::Scram((0..clients).map(user).collect())
}

/// Applies a fault of secrets until `end`. Ignores other faults.
pub(super) async fn apply(simulation: &Simulation, fault: &Fault, end: Instant) {
    let secrets = &simulation.secrets;
    match fault {
        Fault::PasswordRotated {} => {
            secrets.accepted.set(ROTATED);
            simulation.pods.all().into_keys().for_each(|ordinal| update_password(simulation, ordinal));
            sleep_until(end).await;
            secrets.in_files.set(ROTATED);
            simulation.clients.iter().for_each(|client| write_password(client, ROTATED));
        }
        Fault::PasswordRejected { pod: Host::Pod(ordinal) } => {
            add(&secrets.rejecting, *ordinal);
            update_password(simulation, *ordinal);
            sleep_until(end).await;
            remove(&secrets.rejecting, *ordinal);
            update_password(simulation, *ordinal);
        }
        Fault::PasswordFileMissing { client: Host::Client(number) } => {
            let client = &simulation.clients[*number as usize];
            client.host.remove_file(PASSWORD_FILE);
            sleep_until(end).await;
            write_password(client, secrets.in_files.get());
        }
        Fault::CertificateExpired { pod: Host::Pod(ordinal) } => {
            add(&secrets.expired, *ordinal);
            update_certificate(simulation, *ordinal);
            sleep_until(end).await;
            remove(&secrets.expired, *ordinal);
            update_certificate(simulation, *ordinal);
        }
        Fault::CertificateRenewed { pod: Host::Pod(ordinal) } => {
            secrets.renewed.borrow_mut().insert(*ordinal);
            update_certificate(simulation, *ordinal);
        }
        _ => {}
    }
}

fn add(faults: &RefCell<BTreeMap<u32, u32>>, ordinal: u32) {
    *faults.borrow_mut().entry(ordinal).or_default() += 1;
}

fn remove(faults: &RefCell<BTreeMap<u32, u32>>, ordinal: u32) {
    if let Some(count) = faults.borrow_mut().get_mut(&ordinal) {
        *count -= 1;
    }
}

fn is_affected(faults: &RefCell<BTreeMap<u32, u32>>, ordinal: u32) -> bool {
    faults.borrow().get(&ordinal).is_some_and(|count| *count > 0)
}

/// Sets the password that a server accepts.
fn update_password(simulation: &Simulation, ordinal: u32) {
    let Some(pod) = simulation.pods.get(ordinal) else { return };
    let secrets = &simulation.secrets;
    let password = if is_affected(&secrets.rejecting, ordinal) { OTHER } else { secrets.accepted.get() };
    let clients = simulation.plan.topology.clients;
    pod.server.set(|settings| settings.authentication = authentication(clients, password));
}

/// Sets the certificate of a server.
fn update_certificate(simulation: &Simulation, ordinal: u32) {
    let Some(pod) = simulation.pods.get(ordinal) else { return };
    let secrets = &simulation.secrets;
    let certificate = match secrets.renewed.borrow().contains(&ordinal) {
        _ if is_affected(&secrets.expired, ordinal) => Certificate::expired(),
        true => Certificate::renewed(),
        false => Certificate::first(),
    };
    pod.server.set(|settings| settings.certificate = Some(certificate));
}

fn write_password(client: &client::Client, password: &str) {
    client.host.write_file_with_mode(PASSWORD_FILE, password, 0o600);
}
