use std::{future::Future, pin::Pin, time::Duration};

use super::{Resolution, Resolve, ResolveError};
use crate::{endpoint::Endpoint, time::Instant};

/// Nominal validity of a fixed list, which never changes. The pool limits this validity to its maximum refresh
/// interval.
const VALID: Duration = Duration::from_secs(86_400);

/// A fixed list of Pods, for addresses that are not in DNS.
#[derive(Clone, Debug)]
pub struct Fixed {
    endpoints: Vec<Endpoint>,
}

impl Fixed {
    /// Creates a list of these Pods and removes duplicates.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().collect();
        endpoints.sort_unstable();
        endpoints.dedup();
        Self { endpoints }
    }
}

impl Resolve for Fixed {
    fn resolve(&self) -> Pin<Box<dyn Future<Output = Result<Resolution, ResolveError>> + Send + '_>> {
        Box::pin(async move { Ok(Resolution::new(self.endpoints.clone(), Instant::now() + VALID)) })
    }

    fn source(&self) -> String {
        match self.endpoints.len() {
            1 => "a fixed list of 1 address".into(),
            count => format!("a fixed list of {count} addresses"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn returns_its_endpoints_sorted() {
        let pod = |address: &str| Endpoint::new(address.parse().unwrap());
        let fixed = Fixed::new([pod("10.0.0.2:5432"), pod("10.0.0.1:5432")]);
        let resolution = fixed.resolve().await.unwrap();
        assert_eq!(resolution.endpoints, [pod("10.0.0.1:5432"), pod("10.0.0.2:5432")]);
        assert_eq!(resolution.server, None);
        assert_eq!(fixed.source(), "a fixed list of 2 addresses");
    }
}
