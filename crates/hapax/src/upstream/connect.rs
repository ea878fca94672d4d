//! Connecting: to the configured host and port, and nowhere else.

use std::{
    future::Future,
    io::{self, IoSlice},
    path::{Path, PathBuf},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use rustls::{ClientConfig, RootCertStore, crypto::ring};
use rustls_pki_types::{CertificateDer, InvalidDnsNameError, ServerName, pem, pem::PemObject};
use thiserror::Error;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::error::ConnectError;

/// Where the upstream is and how to treat it.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamSettings {
    /// A name or an address; an IPv6 address without brackets.
    pub(crate) host: String,
    /// The port.
    pub(crate) port: u16,
    /// TLS and whom it trusts; none for cleartext.
    pub(crate) tls: Option<TlsRoots>,
    /// For the whole of resolving, connecting, the handshake, and waiting for a free connection.
    pub(crate) connect_timeout: Duration,
    /// Idle connections kept; more are closed.
    pub(crate) max_idle: usize,
    /// How long an idle connection is kept. Below the 60 s that servers commonly use, so that we close first.
    pub(crate) idle_timeout: Duration,
    /// Connections at once; none for no limit.
    pub(crate) max_connections: Option<usize>,
}

impl UpstreamSettings {
    /// The defaults for a cleartext upstream.
    pub(crate) fn new(host: impl Into<String>, port: u16) -> Self {
        Self {
            host: host.into(),
            port,
            tls: None,
            connect_timeout: Duration::from_secs(5),
            max_idle: 256,
            idle_timeout: Duration::from_secs(30),
            max_connections: None,
        }
    }
}

/// Whose certificates are trusted.
#[derive(Clone, Debug, Default)]
pub(crate) struct TlsRoots {
    /// A PEM file of authorities trusted besides the system's.
    pub(crate) extra: Option<PathBuf>,
}

/// Why an upstream cannot be set up.
#[derive(Debug, Error)]
pub(crate) enum UpstreamSetupError {
    /// The file of extra authorities cannot be read, or has none.
    #[error("cannot read certificate authorities from {}", path.display())]
    Roots {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// An extra authority is no certificate that can be trusted.
    #[error("{} has a certificate that cannot be used as an authority", path.display())]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: rustls::Error,
    },
    /// The system has no authorities and no file names any.
    #[error("no certificate authorities: the system has none and no file was given")]
    NoRoots,
    /// The host is neither a name nor an address that a certificate can be for.
    #[error("{host:?} is no name that a certificate can be for")]
    Name {
        /// The configured host.
        host: String,
        /// What is wrong with it.
        source: InvalidDnsNameError,
    },
    /// TLS itself cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

/// Opens connections on some network: the machine's, or one that a test simulates.
pub(crate) trait Dial: Clone + Send + Sync + 'static {
    /// A connection.
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Opens a connection to `host`, a name or an address, at `port`.
    fn dial(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = Result<Self::Stream, ConnectError>> + Send;
}

/// The machine's own TCP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tcp;

impl Dial for Tcp {
    type Stream = TcpStream;

    /// Tries every address in the resolver's order.
    async fn dial(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let unresolved = |source| ConnectError::Resolve {
            host: host.to_owned(),
            source,
        };
        let addresses = lookup_host((host, port))
            .await
            .map_err(|source| unresolved(Some(source)))?;
        let mut failure = unresolved(None);
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    // Small requests must not wait for the upstream's delayed acknowledgement. Failure costs time only.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Err(source) => failure = ConnectError::Connect { address, source },
            }
        }
        Err(failure)
    }
}

/// Opens connections to the one upstream.
pub(crate) struct Connector<D> {
    dial: D,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl<D: Dial> Connector<D> {
    /// Reads the authorities, once.
    pub(crate) fn new(settings: &UpstreamSettings, dial: D) -> Result<Self, UpstreamSetupError> {
        let tls = match &settings.tls {
            None => None,
            Some(roots) => {
                let name = ServerName::try_from(settings.host.clone()).map_err(|source| {
                    UpstreamSetupError::Name {
                        host: settings.host.clone(),
                        source,
                    }
                })?;
                Some((TlsConnector::from(Arc::new(client_config(roots)?)), name))
            }
        };
        Ok(Self {
            dial,
            host: settings.host.clone(),
            port: settings.port,
            tls,
        })
    }

    /// Connects within `limit`.
    pub(crate) async fn connect(
        &self,
        limit: Duration,
    ) -> Result<Transport<D::Stream>, ConnectError> {
        timeout(limit, self.open())
            .await
            .unwrap_or(Err(ConnectError::TimedOut(limit)))
    }

    async fn open(&self) -> Result<Transport<D::Stream>, ConnectError> {
        let stream = Watched {
            stream: self.dial.dial(&self.host, self.port).await?,
            wrote: Arc::default(),
        };
        let wrote = Arc::clone(&stream.wrote);
        let io = match &self.tls {
            None => Socket::Plain(stream),
            Some((connector, name)) => {
                let stream = connector
                    .connect(name.clone(), stream)
                    .await
                    .map_err(ConnectError::Tls)?;
                Socket::Tls(Box::new(stream))
            }
        };
        Ok(Transport { io, wrote })
    }
}

fn client_config(roots: &TlsRoots) -> Result<ClientConfig, UpstreamSetupError> {
    let mut store = RootCertStore::empty();
    // A system's store often has a few certificates that cannot be parsed; the others count.
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if let Some(path) = &roots.extra {
        add_file(&mut store, path)?;
    }
    if store.is_empty() {
        return Err(UpstreamSetupError::NoRoots);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(store)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn add_file(store: &mut RootCertStore, path: &Path) -> Result<(), UpstreamSetupError> {
    let unreadable = |source| UpstreamSetupError::Roots {
        path: path.to_owned(),
        source,
    };
    let mut found = false;
    for certificate in CertificateDer::pem_file_iter(path).map_err(unreadable)? {
        store
            .add(certificate.map_err(unreadable)?)
            .map_err(|source| UpstreamSetupError::Authority {
                path: path.to_owned(),
                source,
            })?;
        found = true;
    }
    if found {
        Ok(())
    } else {
        Err(unreadable(pem::Error::NoItemsFound))
    }
}

/// A fresh connection, and whether anything has been written to its socket.
pub(crate) struct Transport<IO> {
    pub(crate) io: Socket<IO>,
    pub(crate) wrote: Arc<AtomicBool>,
}

/// A stream that remembers whether a byte was written. Under TLS it sees the records, so that a request that is
/// still in the TLS buffer does not count as sent.
pub(crate) struct Watched<IO> {
    stream: IO,
    wrote: Arc<AtomicBool>,
}

impl<IO> Watched<IO> {
    fn note(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(result, Poll::Ready(Ok(written)) if written > 0) {
            self.wrote.store(true, Ordering::Relaxed);
        }
        result
    }
}

/// Cleartext or TLS.
pub(crate) enum Socket<IO> {
    Plain(Watched<IO>),
    Tls(Box<TlsStream<Watched<IO>>>),
}

impl<IO: AsyncRead + Unpin> AsyncRead for Watched<IO> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<IO: AsyncWrite + Unpin> AsyncWrite for Watched<IO> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.note(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.note(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncRead for Socket<IO> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl<IO: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Socket<IO> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, bytes),
            Self::Tls(io) => Pin::new(io).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, slices),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}
