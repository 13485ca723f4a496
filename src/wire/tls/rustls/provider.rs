//! Selects the cryptography provider of rustls: aws-lc-rs with the feature `aws-lc-rs`, otherwise ring. With rustls's
//! own feature `fips`, which an application can enable, the provider of aws-lc-rs contains only algorithms that
//! FIPS 140-3 approves.

#[cfg(feature = "aws-lc-rs")]
pub(super) use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
#[cfg(not(feature = "aws-lc-rs"))]
pub(super) use tokio_rustls::rustls::crypto::ring::default_provider;
