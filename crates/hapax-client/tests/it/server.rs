//! A server that does to each request in turn what it is told, byte by byte, and keeps what it was asked.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// What is done to a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Hang up without an answer.
    Hangup,
    /// These bytes, then hang up.
    Send(&'static str),
    /// Never answer.
    Silence,
}

pub(crate) const MADE: Act =
    Act::Send("HTTP/1.1 201 Created\r\ncontent-length: 11\r\n\r\n{\"order\":1}");
pub(crate) const CUT: Act = Act::Send("HTTP/1.1 201 Created\r\ncontent-length: 11\r\n\r\n{\"or");
pub(crate) const NO_ENTRY: Act =
    Act::Send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n");
pub(crate) const UNKNOWN: Act = Act::Send(
    "HTTP/1.1 504 Gateway Timeout\r\ncontent-type: application/problem+json\r\ncontent-length: 58\r\n\r\n{\"type\":\"urn:hapax:problems#outcome-unknown\",\"status\":504}",
);

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) key: Option<String>,
    pub(crate) body: String,
    pub(crate) head: String,
}

pub(crate) struct Server {
    pub(crate) url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    /// The last act is for all further requests.
    pub(crate) async fn start(acts: &[Act]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/create-order", listener.local_addr().unwrap());
        let (asked, acts) = (Arc::<Mutex<Vec<Asked>>>::default(), acts.to_vec());
        let kept = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, acts.clone(), Arc::clone(&kept)));
            }
        });
        Self { url, asked, task }
    }

    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// The one key that all requests had.
    pub(crate) fn key(&self) -> String {
        let asked = self.asked();
        let key = asked[0].key.clone().expect("a key");
        assert!(
            asked.iter().all(|one| one.key.as_ref() == Some(&key)),
            "{asked:?}"
        );
        assert!(
            asked.iter().all(|one| one.body == asked[0].body),
            "{asked:?}"
        );
        key
    }
}

async fn serve(mut stream: TcpStream, acts: Vec<Act>, kept: Arc<Mutex<Vec<Asked>>>) {
    let mut bytes = Vec::new();
    let asked = loop {
        let mut part = [0; 4096];
        let Ok(count @ 1..) = stream.read(&mut part).await else {
            return;
        };
        bytes.extend_from_slice(&part[..count]);
        if let Some(asked) = parse(&String::from_utf8_lossy(&bytes)) {
            break asked;
        }
    };
    let act = {
        let mut kept = kept.lock().unwrap();
        kept.push(asked);
        acts[kept.len().min(acts.len()) - 1].clone()
    };
    match act {
        Act::Hangup => {}
        Act::Send(text) => {
            let _ = stream.write_all(text.as_bytes()).await;
        }
        Act::Silence => std::future::pending().await,
    }
}

fn parse(text: &str) -> Option<Asked> {
    let (head, body) = text.split_once("\r\n\r\n")?;
    let field = |name: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.to_owned())
    };
    let length: usize = field("content-length").map_or(0, |text| text.parse().unwrap());
    (body.len() >= length).then(|| Asked {
        key: field("idempotency-key"),
        body: body.to_owned(),
        head: head.to_owned(),
    })
}
