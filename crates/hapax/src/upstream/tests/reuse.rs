//! Which connections are used again, and which requests are never sent again.

use super::*;

#[tokio::test]
async fn a_connection_whose_answer_was_read_is_used_again() {
    let answers = [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "ok"),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "ok",
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", ""),
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
    ];
    let upstream = fake(move |mut peer, _| async move {
        for (answer, _) in answers.iter().cycle() {
            if peer.head().await.is_none() {
                return;
            }
            peer.say(answer).await;
        }
    })
    .await;
    let client = upstream.client();
    for round in 0..100 {
        let response = send(&client).await.unwrap();
        assert_eq!(text(response).await.unwrap(), answers[round % 4].1);
        assert_eq!(client.idle(), 1, "round {round}");
    }
    assert_eq!((upstream.connections(), upstream.requests()), (1, 100));
}

#[tokio::test]
async fn an_answer_without_content_gives_its_connection_back_unread() {
    let upstream = fake(async |mut peer: Peer, _| {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let client = upstream.client();
    for _ in 0..3 {
        drop(send(&client).await.unwrap());
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_says_close_or_whose_answer_was_dropped_is_not_used_again() {
    for answer in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\n\r\nok",
    ] {
        let upstream = fake(move |mut peer, _| async move {
            peer.head().await;
            peer.say(answer).await;
        })
        .await;
        let client = upstream.client();
        for round in 1..=3 {
            assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "ok");
            assert_eq!((upstream.connections(), client.idle()), (round, 0));
        }
    }
    let closed = Arc::new(Notify::new());
    let bell = Arc::clone(&closed);
    let upstream = fake(move |mut peer, _| {
        let bell = Arc::clone(&bell);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart")
                .await;
            assert!(peer.head().await.is_none());
            bell.notify_one();
        }
    })
    .await;
    let client = upstream.client();
    drop(send(&client).await.unwrap());
    timeout(SOON, closed.notified()).await.unwrap();
    assert_eq!(client.idle(), 0);
}

#[tokio::test]
async fn a_connection_that_the_upstream_closed_while_idle_is_replaced_unseen() {
    let closed = Arc::new(Notify::new());
    let bell = Arc::clone(&closed);
    let upstream = fake(move |mut peer, _| {
        let bell = Arc::clone(&bell);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            drop(peer);
            bell.notify_one();
        }
    })
    .await;
    let client = upstream.client();
    for round in 1..=20 {
        assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "ok");
        timeout(SOON, closed.notified()).await.unwrap();
        look_at_sockets().await;
        assert_eq!(
            (upstream.connections(), upstream.requests()),
            (round, round)
        );
    }
}

#[tokio::test]
async fn a_pooled_connection_that_dies_as_the_request_arrives_is_after_dispatch_and_not_repeated() {
    // How many bytes of the second request the upstream reads before it closes.
    for reads in 1..=12 {
        let upstream = fake(move |mut peer, _| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .await;
            let mut part = vec![0; reads];
            peer.stream.read_exact(&mut part).await.unwrap();
        })
        .await;
        let client = upstream.client();
        assert_eq!(text(send(&client).await.unwrap()).await.unwrap(), "ok");
        let error = send(&client).await.unwrap_err();
        assert!(
            matches!(error, UpstreamError::AfterDispatch { .. }),
            "{error:?}"
        );
        assert_eq!(upstream.connections(), 1, "the request was sent again");
    }
}

#[tokio::test]
async fn a_pooled_connection_that_dies_at_any_moment_never_doubles_a_request() {
    // The upstream closes right after its answer, with no signal: whatever the race gives, a request that failed after
    // dispatch was not repeated, and one that was repeated had not arrived.
    let upstream = fake(async |mut peer: Peer, _| {
        peer.head().await;
        peer.say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    })
    .await;
    let client = upstream.client();
    let mut answered = 0;
    for _ in 0..200 {
        match send(&client).await {
            Ok(response) => {
                assert_eq!(text(response).await.unwrap(), "ok");
                answered += 1;
            }
            Err(error) => assert!(!error.is_not_sent(), "{error:?}"),
        }
    }
    assert!(answered >= 100, "{answered}");
    assert_eq!(upstream.requests(), answered);
}

#[tokio::test]
async fn an_expired_connection_is_not_used() {
    let upstream = fake(async |mut peer: Peer, _| {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
        }
    })
    .await;
    let mut settings = upstream.settings();
    settings.idle_timeout = Duration::ZERO;
    let client = Client::new(&settings).unwrap();
    for _ in 0..3 {
        send(&client).await.unwrap();
    }
    assert_eq!(upstream.connections(), 3);
}

#[tokio::test]
async fn idle_connections_are_swept_without_traffic() {
    let closed = Arc::new(Notify::new());
    let bell = Arc::clone(&closed);
    let upstream = fake(move |mut peer, _| {
        let bell = Arc::clone(&bell);
        async move {
            peer.head().await;
            peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            assert!(peer.head().await.is_none());
            bell.notify_one();
        }
    })
    .await;
    let mut settings = upstream.settings();
    settings.idle_timeout = Duration::from_millis(40);
    let client = Client::new(&settings).unwrap();
    for _ in 0..2 {
        send(&client).await.unwrap();
        assert_eq!(client.idle(), 1);
        timeout(SOON, closed.notified()).await.unwrap();
        assert_eq!(client.idle(), 0);
    }
}

#[tokio::test]
async fn no_more_connections_are_kept_or_opened_than_allowed() {
    let go = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&go);
    let upstream = fake(move |mut peer, _| {
        let gate = Arc::clone(&gate);
        async move {
            while peer.head().await.is_some() {
                gate.acquire().await.unwrap().forget();
                peer.say("HTTP/1.1 204 No Content\r\n\r\n").await;
            }
        }
    })
    .await;
    let mut settings = upstream.settings();
    settings.max_connections = Some(2);
    settings.max_idle = 1;
    settings.connect_timeout = Duration::from_millis(50);
    let client = Client::new(&settings).unwrap();
    let busy: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn({
                let client = client.clone();
                async move { send(&client).await }
            })
        })
        .collect();
    while upstream.requests() < 2 {
        tokio::task::yield_now().await;
    }
    let error = send(&client).await.unwrap_err();
    assert!(
        matches!(
            error,
            UpstreamError::NotSent {
                timed_out: true,
                source: ConnectError::Busy(_)
            }
        ),
        "{error:?}"
    );
    go.add_permits(3);
    for one in busy {
        one.await.unwrap().unwrap();
    }
    assert_eq!((upstream.connections(), client.idle()), (2, 1));
    send(&client).await.unwrap();
    assert_eq!(upstream.connections(), 2);
}

#[tokio::test]
async fn an_early_answer_leaves_no_half_sent_request_in_the_pool() {
    let upstream = fake(async |mut peer: Peer, _| {
        peer.head().await;
        peer.say("HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno")
            .await;
        peer.head().await;
    })
    .await;
    let client: Upstream<Endless> = Upstream::new(&upstream.settings()).unwrap();
    let request = Request::post("/")
        .header("host", "a")
        .body(Endless)
        .unwrap();
    let response = timeout(SOON, client.send(Box::new(request), None))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 413);
    timeout(SOON, response.into_body().collect())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(client.idle(), 0);
}

/// A body that never comes.
struct Endless;

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<Bytes>, std::io::Error>>> {
        std::task::Poll::Pending
    }
}
