//! The upstream both proxies stand in front of: as cheap as it can be, in a thread of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::load::{Message, find_message};

/// The content of every answer: 300 bytes of JSON.
pub(crate) fn content() -> String {
    let start = r#"{"id":"pay_1Nf8Qk2eZvKYlo2C","status":"succeeded","amount":4200,"note":""#;
    let end = "\"}";
    let fill = 300 - start.len() - end.len();
    format!("{start}{}{end}", "x".repeat(fill))
}

/// A running upstream. Requests to `/hold` are answered only once they are let go.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    served: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    is_open: watch::Sender<bool>,
}

impl Upstream {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (served, held) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (is_open, gate) = watch::channel(false);
        let connection = Connection {
            served: Arc::clone(&served),
            held: Arc::clone(&held),
            gate,
        };
        // Ends with the process: it owns nothing that has to be put in order.
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).unwrap();
                loop {
                    let (stream, _) = listener.accept().await.unwrap();
                    stream.set_nodelay(true).unwrap();
                    tokio::spawn(connection.clone().serve(stream));
                }
            });
        });
        Self {
            address,
            served,
            held,
            is_open,
        }
    }

    /// Requests answered so far.
    pub(crate) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// Requests to `/hold` that have arrived so far.
    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Answers what is held, or holds again.
    pub(crate) fn open(&self, is_open: bool) {
        self.is_open.send_replace(is_open);
    }
}

#[derive(Clone)]
struct Connection {
    served: Arc<AtomicU64>,
    held: Arc<AtomicU64>,
    gate: watch::Receiver<bool>,
}

impl Connection {
    async fn serve(mut self, mut stream: TcpStream) {
        let content = content();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{content}",
            content.len()
        );
        let mut buffer = Vec::with_capacity(4096);
        loop {
            let Some(Message { len, .. }) = find_message(&buffer) else {
                match stream.read_buf(&mut buffer).await {
                    Ok(read) if read > 0 => continue,
                    // The proxy has closed its connection.
                    Ok(_) | Err(_) => return,
                }
            };
            if buffer.starts_with(b"POST /hold") {
                self.held.fetch_add(1, Ordering::Relaxed);
                self.gate.wait_for(|is_open| *is_open).await.unwrap();
            }
            buffer.drain(..len);
            self.served.fetch_add(1, Ordering::Relaxed);
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }
}
