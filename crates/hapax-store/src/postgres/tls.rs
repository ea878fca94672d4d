//! TLS to the server. Whoever encrypts also verifies: a stranger's certificate is no secrecy.

use std::future::Future;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client;

use super::error::PostgresError;

/// How the server is spoken to.
#[derive(Debug, Clone)]
pub(super) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// In plain.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Encrypted, with a server whose certificate is for its name and signed by one of `roots`
    /// (a file of certificates; the system's where there is none).
    pub(super) fn new(roots: Option<&Path>) -> Result<Self, PostgresError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| PostgresError::Certificates(error.to_string()))?
            .with_root_certificates(match roots {
                Some(path) => from_file(path)?,
                None => from_system()?,
            })
            .with_no_client_auth();
        Ok(Self(Some(Arc::new(config))))
    }
}

fn from_file(path: &Path) -> Result<RootCertStore, PostgresError> {
    let wrong = |error: &dyn std::fmt::Display| {
        PostgresError::Certificates(format!("{}: {error}", path.display()))
    };
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(path).map_err(|error| wrong(&error))?;
    for certificate in certificates {
        let certificate = certificate.map_err(|error| wrong(&error))?;
        roots.add(certificate).map_err(|error| wrong(&error))?;
    }
    if roots.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(roots)
}

fn from_system() -> Result<RootCertStore, PostgresError> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    // Some of a system's certificates are always of a kind that nobody reads.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        return Err(PostgresError::Certificates(
            "the system has none: install ca-certificates, or name a file with sslrootcert"
                .to_owned(),
        ));
    }
    Ok(roots)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Tls {
    type Stream = Stream<S>;
    type TlsConnect = Connecting;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> Result<Connecting, io::Error> {
        Ok(Connecting {
            config: self.0.clone(),
            host: host.to_owned(),
        })
    }
}

/// A handshake to be made.
pub(super) struct Connecting {
    config: Option<Arc<ClientConfig>>,
    host: String,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for Connecting {
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            // Not asked for where the mode is `disable`.
            let config = self.config.ok_or(io::ErrorKind::Unsupported)?;
            let name = ServerName::try_from(self.host).map_err(io::Error::other)?;
            let connected = TlsConnector::from(config).connect(name, stream).await?;
            Ok(Stream(connected))
        })
    }
}

/// An encrypted connection.
pub(super) struct Stream<S>(client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    /// Without binding: the server is known by its certificate.
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
