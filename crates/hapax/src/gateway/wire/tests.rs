//! The wire under hyper, on a connection in memory and with time that is told.

use std::{convert::Infallible, future::poll_fn};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::*;
use crate::gateway::{framing::Preface, refusal::refusal_of};

const MAX_HEAD: usize = 64 * 1024;
/// Far beyond every deadline.
const LONG: Duration = Duration::from_secs(3600);

struct Fixture {
    client: DuplexStream,
    /// What the service saw: target and content, or why the content failed.
    seen: mpsc::UnboundedReceiver<(String, Result<Vec<u8>, String>)>,
    server: JoinHandle<hyper::Result<()>>,
}

/// hyper behind a wire. `/big` is answered with 4 MiB, `/wait` after two minutes.
fn fixture() -> Fixture {
    let (client, server) = duplex(16 * 1024);
    let (seen, all) = mpsc::unbounded_channel();
    let wire = Wire::new(
        server,
        Framing::new(MAX_HEAD, Preface::Accepted),
        Deadlines::default(),
        Arc::default(),
    );
    let service = service_fn(move |request: Request<Incoming>| answer(request, seen.clone()));
    let server = tokio::spawn(
        http1::Builder::new()
            .half_close(true)
            .serve_connection(TokioIo::new(wire), service),
    );
    Fixture {
        client,
        seen: all,
        server,
    }
}

async fn answer(
    request: Request<Incoming>,
    seen: mpsc::UnboundedSender<(String, Result<Vec<u8>, String>)>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if let Some(refusal) = refusal_of(&request) {
        let mut response = Response::new(Full::from(refusal.code()));
        *response.status_mut() = match refusal {
            Refusal::HeadTimeout => StatusCode::REQUEST_TIMEOUT,
            _ => StatusCode::BAD_REQUEST,
        };
        return Ok(response);
    }
    let target = request.uri().to_string();
    let content = match request.into_body().collect().await {
        Ok(content) => Ok(content.to_bytes().to_vec()),
        Err(error) => Err(format!(
            "{:?}",
            std::error::Error::source(&error).map(ToString::to_string)
        )),
    };
    let body = match target.as_str() {
        "/big" => Bytes::from(vec![b'x'; 4 << 20]),
        "/wait" => {
            tokio::time::sleep(Duration::from_secs(120)).await;
            Bytes::from_static(b"late")
        }
        _ => Bytes::from(target.clone()),
    };
    seen.send((target, content)).unwrap();
    Ok(Response::new(Full::new(body)))
}

fn get(target: &str) -> String {
    format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n")
}

impl Fixture {
    async fn send(&mut self, bytes: &str) {
        self.client.write_all(bytes.as_bytes()).await.unwrap();
    }

    /// All that comes until the server closes.
    async fn rest(&mut self) -> String {
        let mut text = Vec::new();
        timeout(LONG, self.client.read_to_end(&mut text))
            .await
            .unwrap()
            .unwrap();
        String::from_utf8(text).unwrap()
    }

    /// One answer, up to the content `end`.
    async fn until(&mut self, end: &str) -> String {
        let mut text = Vec::new();
        while !text.ends_with(end.as_bytes()) {
            text.push(timeout(LONG, self.client.read_u8()).await.unwrap().unwrap());
        }
        String::from_utf8(text).unwrap()
    }

    fn targets(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.seen.try_recv().ok())
            .map(|(target, _)| target)
            .collect()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_before_a_refused_one_are_answered_first_and_then_the_refusal() {
    let mut it = fixture();
    it.send(&format!(
        "{}{}GET /3 HTTP/1.1\nHost: a\r\n\r\n{}",
        get("/1"),
        get("/2"),
        get("/4")
    ))
    .await;
    let text = it.rest().await;
    let places: Vec<_> = [
        "200 OK",
        "/1",
        "200 OK\r\n",
        "/2",
        "400 Bad Request",
        "bare-lf",
    ]
    .iter()
    .scan(0, |from, part| {
        *from += text.get(*from..)?.find(part)?;
        Some(*from)
    })
    .collect();
    assert_eq!(places.len(), 6, "{text}");
    assert!(
        text.to_ascii_lowercase().contains("connection: close"),
        "{text}"
    );
    assert_eq!(it.targets(), ["/1", "/2"]);
}

#[tokio::test(start_paused = true)]
async fn a_refused_head_is_answered_however_it_was_cut_into_reads() {
    for cut in [1, 2, 7] {
        let mut it = fixture();
        let bytes = format!(
            "{}POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
            get("/1")
        );
        for part in bytes.as_bytes().chunks(cut) {
            it.client.write_all(part).await.unwrap();
            tokio::task::yield_now().await;
        }
        let text = it.rest().await;
        assert!(
            text.contains("400 Bad Request") && text.ends_with("length-invalid"),
            "{text}"
        );
        assert_eq!(it.targets(), ["/1"]);
    }
}

#[tokio::test(start_paused = true)]
async fn bad_content_never_completes_and_ends_the_connection() {
    let mut it = fixture();
    it.send("POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nHost: b\r\n\r\n").await;
    it.rest().await;
    let (target, content) = it.seen.recv().await.unwrap();
    assert_eq!(target, "/b");
    assert!(content.unwrap_err().contains("trailer field"));
}

#[tokio::test(start_paused = true)]
async fn sound_requests_pass_byte_by_byte() {
    let mut it = fixture();
    let bytes =
        "POST /b HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for byte in bytes.bytes().chain(get("/c").bytes()) {
        it.client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
    }
    it.client.shutdown().await.unwrap();
    it.rest().await;
    assert_eq!(
        it.seen.recv().await.unwrap(),
        ("/b".to_owned(), Ok(b"abc".to_vec()))
    );
    assert_eq!(
        it.seen.recv().await.unwrap(),
        ("/c".to_owned(), Ok(Vec::new()))
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_closes_its_side_still_gets_its_answer() {
    let mut it = fixture();
    it.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
        .await;
    it.client.shutdown().await.unwrap();
    assert!(it.rest().await.ends_with("/x"));
    assert_eq!(
        it.seen.recv().await.unwrap(),
        ("/x".to_owned(), Ok(b"hi".to_vec()))
    );
    assert!(it.server.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_head_or_a_body_that_is_cut_has_no_effect() {
    let mut it = fixture();
    it.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    it.client.shutdown().await.unwrap();
    assert_eq!(it.rest().await, "");
    assert!(it.targets().is_empty());

    let mut it = fixture();
    it.send("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nhi")
        .await;
    it.client.shutdown().await.unwrap();
    it.rest().await;
    assert!(it.seen.recv().await.unwrap().1.is_err());
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_closes_silently_after_a_minute() {
    let begun = Instant::now();
    let mut it = fixture();
    assert_eq!(it.rest().await, "");
    assert_eq!(begun.elapsed().as_secs(), 60);

    // The minute counts from the answer, and the connection still serves just before it.
    let begun = Instant::now();
    let mut it = fixture();
    for _ in 0..3 {
        tokio::time::advance(Duration::from_secs(59)).await;
        it.send(&get("/i")).await;
        it.until("/i").await;
    }
    assert_eq!(it.rest().await, "");
    assert_eq!(begun.elapsed().as_secs(), 3 * 59 + 60);
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_told_so_ten_seconds_after_its_first_byte() {
    let begun = Instant::now();
    let mut it = fixture();
    it.send(&get("/one")).await;
    it.until("/one").await;
    tokio::time::advance(Duration::from_secs(20)).await;
    // A byte now and then does not buy time.
    for byte in get("/two").bytes().take(9) {
        it.client.write_all(&[byte]).await.unwrap();
        tokio::task::yield_now().await;
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::task::yield_now().await;
    }
    let text = it.rest().await;
    assert!(
        text.starts_with("HTTP/1.1 408") && text.ends_with("head-timeout"),
        "{text}"
    );
    assert_eq!(begun.elapsed().as_secs(), 30);
    assert_eq!(it.targets(), ["/one"]);
}

#[tokio::test(start_paused = true)]
async fn a_body_may_be_slow_but_not_stall() {
    let mut it = fixture();
    it.send("POST /s HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        .await;
    for _ in 0..3 {
        it.send("x").await;
        tokio::time::advance(Duration::from_secs(29)).await;
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    it.rest().await;
    assert!(
        (1..=30).contains(&begun.elapsed().as_secs()),
        "{:?}",
        begun.elapsed()
    );
    assert!(
        it.seen
            .recv()
            .await
            .unwrap()
            .1
            .unwrap_err()
            .contains("stalled")
    );
}

#[tokio::test(start_paused = true)]
async fn no_deadline_strikes_while_the_service_works() {
    let mut it = fixture();
    it.send(&get("/wait")).await;
    it.until("late").await;
    it.send(&get("/after")).await;
    it.until("/after").await;
    assert_eq!(it.targets(), ["/wait", "/after"]);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_no_byte_of_its_answer_is_cut() {
    let mut it = fixture();
    it.send(&get("/big")).await;
    let begun = Instant::now();
    let error = timeout(LONG, &mut it.server)
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert!(format!("{error:?}").contains("takes no bytes"), "{error:?}");
    assert_eq!(begun.elapsed().as_secs(), 30);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_whole_answer() {
    let mut it = fixture();
    it.send(&get("/big")).await;
    it.client.shutdown().await.unwrap();
    let mut total = 0;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        tokio::time::advance(Duration::from_secs(20)).await;
        match it.client.read(&mut buffer).await.unwrap() {
            0 => break,
            read => total += read,
        }
    }
    assert!(total > 4 << 20, "{total}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_after_a_refusal_reads_on_for_a_while() {
    let mut it = fixture();
    let (done, finished) = oneshot::channel();
    it.send("GET / HTTP/1.1\nHost: a\r\n\r\n").await;
    let text = it.until("bare-lf").await;
    assert!(text.contains("400"), "{text}");
    // The client still sends; nothing resets it.
    let (mut reader, mut writer) = tokio::io::split(it.client);
    tokio::spawn(async move {
        let more = vec![b'x'; 128 * 1024];
        done.send(writer.write_all(&more).await.is_ok()).unwrap();
    });
    assert!(timeout(LONG, finished).await.unwrap().unwrap());
    let mut rest = Vec::new();
    timeout(LONG, reader.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert!(it.server.await.unwrap().is_ok());
}

#[tokio::test(start_paused = true)]
async fn the_first_head_tells_the_protocol_and_no_byte_is_lost() {
    let preface = crate::gateway::framing::H2_PREFACE;
    let more = [preface, b"\0\0\0\x04\0\0\0\0\0"].concat();
    for (bytes, expected) in [
        (more.as_slice(), Some(Protocol::Http2)),
        (get("/a").as_bytes(), None),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc".as_bytes(),
            None,
        ),
    ] {
        for cut in [1, 5, bytes.len()] {
            let (mut client, server) = duplex(1024);
            let framing = Framing::new(MAX_HEAD, Preface::Accepted);
            let mut wire = Wire::new(server, framing, Deadlines::default(), Arc::default());
            let sent = bytes.to_vec();
            tokio::spawn(async move {
                for part in sent.chunks(cut) {
                    client.write_all(part).await.unwrap();
                    tokio::task::yield_now().await;
                }
            });
            let found = poll_fn(|cx| wire.poll_protocol(cx)).await.unwrap();
            assert_eq!(found, expected);
            let mut read = Vec::new();
            wire.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, bytes, "cut {cut}");
        }
    }
}
