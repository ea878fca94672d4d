//! TLS towards targets that speak https.

use std::sync::Arc;

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use crate::CheckError;

/// A connector that trusts the system's authorities, and those of a PEM text. Certificates are always verified: a check
/// that somebody else answers says nothing about the target.
pub(crate) fn connector(extra: Option<&str>) -> Result<TlsConnector, CheckError> {
    let wrong = |why: String| CheckError::Certificates(why);
    let mut roots = RootCertStore::empty();
    // A system's store often has a few certificates that cannot be parsed; the others count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(text) = extra {
        let mut found = 0;
        for certificate in CertificateDer::pem_slice_iter(text.as_bytes()) {
            let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
            roots
                .add(certificate)
                .map_err(|error| wrong(error.to_string()))?;
            found += 1;
        }
        if found == 0 {
            return Err(wrong("the file has no certificate in PEM".into()));
        }
    }
    if roots.is_empty() {
        return Err(wrong(
            "this system has no certificate authorities; name one with --ca-file".into(),
        ));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}
