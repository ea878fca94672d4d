//! What upstreams answer, whole, cut and malformed.

use super::*;

#[tokio::test]
async fn an_answer_cut_at_any_byte_is_after_dispatch_or_a_body_error() {
    const ANSWER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    let head = ANSWER.len() - 5;
    for reset in [false, true] {
        for cut in 0..=ANSWER.len() {
            let upstream = fake(move |mut peer, _| async move {
                peer.head().await;
                peer.say(&ANSWER.as_bytes()[..cut]).await;
                if reset {
                    peer.stream.set_zero_linger().unwrap();
                }
            })
            .await;
            let result = send(&upstream.client()).await;
            match result {
                Err(error) => {
                    assert!(
                        matches!(error, UpstreamError::AfterDispatch { .. }),
                        "{cut}: {error:?}"
                    );
                    assert!(cut < head || reset, "{cut}");
                }
                Ok(response) => {
                    assert!(cut >= head, "{cut}");
                    let body = text(response).await;
                    // After a reset the system may forget bytes it had received.
                    assert!(
                        body.is_ok() == (cut == ANSWER.len()) || reset,
                        "{cut}: {body:?}"
                    );
                    assert!(cut == ANSWER.len() || body.is_err(), "{cut}: {body:?}");
                }
            }
            assert_eq!(upstream.requests(), 1, "{cut}: the request was sent again");
        }
    }
}

#[tokio::test]
async fn a_chunked_answer_cut_at_any_byte_is_a_body_error() {
    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    const BODY: &str = "5\r\nhello\r\n0\r\n\r\n";
    for cut in 0..BODY.len() {
        let upstream = fake(move |mut peer, _| async move {
            peer.head().await;
            peer.say(HEAD).await;
            peer.say(&BODY.as_bytes()[..cut]).await;
        })
        .await;
        let response = send(&upstream.client()).await.unwrap();
        assert!(text(response).await.is_err(), "{cut}");
    }
}

#[tokio::test]
async fn malformed_answers_are_after_dispatch() {
    let large = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "y".repeat(70_000));
    for answer in [
        "HTP/1.1 200 OK\r\n\r\n",
        "hello\r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/3.0 200 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        &large,
    ] {
        let answer: Arc<str> = answer.into();
        let shown: String = answer.chars().take(80).collect();
        let upstream = fake(move |mut peer, _| {
            let answer = Arc::clone(&answer);
            async move {
                peer.head().await;
                // The client may hang up while a large head is still being sent.
                let _ = peer.stream.write_all(answer.as_bytes()).await;
            }
        })
        .await;
        let result = send(&upstream.client()).await;
        assert!(
            matches!(result, Err(UpstreamError::AfterDispatch { .. })),
            "{shown:?}: {:?}",
            result.err()
        );
        assert_eq!(upstream.requests(), 1);
    }
}

#[tokio::test]
async fn informational_answers_are_not_final() {
    let upstream = fake(async |mut peer: Peer, _| {
        while peer.head().await.is_some() {
            peer.say("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n").await;
            peer.say("HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\nok").await;
        }
    })
    .await;
    let client = upstream.client();
    for _ in 0..2 {
        let response = send(&client).await.unwrap();
        assert_eq!(response.status(), 201);
        assert!(!response.headers().contains_key("link"));
        assert_eq!(text(response).await.unwrap(), "ok");
    }
    assert_eq!(upstream.connections(), 1);
}

#[tokio::test]
async fn a_granted_upgrade_hands_the_socket_over() {
    let upstream = fake(async |mut peer: Peer, _| {
        peer.head().await;
        peer.say(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\nhi",
        )
        .await;
        let mut word = [0; 5];
        peer.stream.read_exact(&mut word).await.unwrap();
        peer.say(word).await;
    })
    .await;
    let mut request = request("");
    request
        .headers_mut()
        .insert("connection", "upgrade".parse().unwrap());
    request
        .headers_mut()
        .insert("upgrade", "echo".parse().unwrap());
    let mut response = timeout(SOON, upstream.client().send(Box::new(request), None))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(response.status(), 101);
    let mut io = TokioIo::new(
        timeout(SOON, hyper::upgrade::on(&mut response))
            .await
            .unwrap()
            .unwrap(),
    );
    io.write_all(b"there").await.unwrap();
    let mut all = Vec::new();
    timeout(SOON, io.read_to_end(&mut all))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(all, b"hithere");
}
